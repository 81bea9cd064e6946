"""Step `ingest`: a line's snapshot and manifest follow its source."""

from morphad.base.files import remove_leftovers, write_json
from morphad.data.feedback import Feedback, join_verdicts, read_verdicts
from morphad.data.index import open_memory
from morphad.data.manifest import manifest_id, write_manifest
from morphad.data.snapshot.copying import refresh
from morphad.data.source.finding import find_images, licence
from morphad.data.source.layouts import endings
from morphad.settings import LineSettings
from morphad.steps.common import Figures, label_counts
from morphad.steps.paths import LinePaths


def ingest(settings: LineSettings, paths: LinePaths, seed: int = 0) -> Figures:
    """Bring a line's snapshot and manifest up to date with its source; what did not change is not read again.

    Raises:
        BadInputError: No images, more unreadable ones than the settings bear, verdicts that cannot be read, or another
            ingest of the line at work.
        ServiceError: A bucket's server refused or did not answer.
    """
    verdicts = read_verdicts(settings.ingest.verdicts) if settings.ingest.verdicts else []
    with open_memory(paths.memory, paths.line) as remembered:
        for path in (paths.snapshot, paths.manifest, paths.rejects):
            remove_leftovers(path)
        aside: list[str] = []
        found = find_images(settings.ingest, remembered, aside)
        rows, left_out = refresh(found, paths.snapshot, settings.ingest, paths.line, memory=remembered)
        joined = Feedback()
        if settings.ingest.verdicts:
            rows, joined = join_verdicts(rows, verdicts)
        write_manifest(rows, paths.manifest)
        write_json(paths.rejects, [{"name": reject.name, "reason": reject.reason} for reject in left_out])
        write_json(paths.feedback, joined.to_json())
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
