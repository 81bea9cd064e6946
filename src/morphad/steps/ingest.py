"""Step `ingest`: a line's snapshot and manifest follow its source."""

from morphad.base.files import remove_leftovers, write_json
from morphad.data.feedback import Feedback, join_verdicts, read_verdicts
from morphad.data.index import open_memory
from morphad.data.manifest import manifest_id, write_manifest
from morphad.data.snapshot.copying import refresh
from morphad.data.snapshot.sweeping import note_use
from morphad.data.source.finding import find_images, licence
from morphad.data.source.layouts import endings
from morphad.settings import LineSettings
from morphad.steps.common import Figures, label_counts
from morphad.steps.paths import LinePaths


def ingest(settings: LineSettings, paths: LinePaths, seed: int = 0) -> Figures:
    """Bring a line's pictures and manifest up to date with its source; what did not change is not read again.

    In a project's folder the pictures are a snapshot, in pods a store on the state's volume, or where they came from.

    Raises:
        BadInputError: No images, more unreadable ones than the settings allow, verdicts that cannot be read, or another
            ingest of the line at work.
        ServiceError: A bucket's server refused or did not answer.
    """
    verdicts = read_verdicts(settings.ingest.verdicts) if settings.ingest.verdicts else []
    with open_memory(paths.memory, paths.line) as remembered:
        for path in (paths.manifest, paths.rejects, *([] if paths.in_pod else [paths.snapshot])):
            remove_leftovers(path)
        aside: list[str] = []
        found = find_images(settings.ingest, remembered, aside)
        if paths.in_pod:
            root = str(found[0].root.absolute()) if settings.ingest.in_place else ""
            write_json(paths.place, {"in_place": root, "keep_days": settings.ingest.keep_days})
        rows, left_out = refresh(found, paths.pictures, settings.ingest, paths.line, memory=remembered)
        joined = Feedback()
        if settings.ingest.verdicts:
            rows, joined = join_verdicts(rows, verdicts)
        write_manifest(rows, paths.manifest)
        write_json(paths.rejects, [{"name": reject.name, "reason": reject.reason} for reject in left_out])
        write_json(paths.feedback, joined.to_json())
        if paths.in_pod:  # before anybody else may sweep
            note_use(rows, paths.used)
        changes = remembered.changes
    return {
        **label_counts(rows),
        "rejects": len(left_out),
        "aside": endings(aside),
        "new": len(changes.new),
        "changed": len(changes.changed),
        "gone": len(changes.gone),
        "verdicts": joined.images,
        "remarks": joined.remarks(),
        "data_hash": manifest_id(rows),
        "licence": licence(settings.ingest),
    }
