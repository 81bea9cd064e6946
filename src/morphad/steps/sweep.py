"""After a run on a cluster: pictures that nobody needs go from the state's volume."""

import time

from morphad.base.errors import MorphadError
from morphad.base.files import read_json
from morphad.data.index import open_memory
from morphad.data.pictures import Store
from morphad.data.snapshot.sweeping import days_ago, sweep
from morphad.registry import NoRegistryError, Registry
from morphad.settings import LineSettings
from morphad.steps.common import frozen_holdout
from morphad.steps.paths import LinePaths


def sweep_pictures(settings: LineSettings, paths: LinePaths, data_hash: str) -> str:
    """Remove the pictures of a line's store that no run of the last `ingest.keep_days` days used.

    Those stay, however old, that the champion, the versions that a rollback can go back to and the one that awaits
    approval were made from, and those of the frozen holdout. Where it is not known which versions these are, or an
    ingest of the line is at work, nothing is removed: the next run does.

    Returns:
        What was done, in a sentence.
    """
    try:
        days = int(read_json(paths.place)["keep_days"])
        registry = Registry(settings.register_)
        try:
            standing = registry.standing(paths.line)
            versions = {standing.champion, *standing.former, standing.candidate}
            needed = {registry.version(paths.line, number).data_hash for number in versions if number is not None}
        except NoRegistryError:
            needed = set()
        needed.add(data_hash)  # of this run, however long it took
        frozen = frozen_holdout(paths.holdout)
        with open_memory(paths.memory, paths.line):
            swept = sweep(
                Store(paths.store),
                paths.used,
                needed,
                {image.sha256 for image in frozen.images},
                days_ago(days, time.time()),
            )
    except MorphadError as error:
        return f"no old pictures were removed: {error}"
    return (
        f"{swept.removed} pictures ({swept.removed_bytes / 1e6:,.0f} MB) that no run of the last "
        f"{days} days used were removed, {swept.left} are kept"
    )
