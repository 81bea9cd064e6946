"""Step `split`: every image gets its role."""

from morphad.base.files import write_json
from morphad.data.manifest import read_manifest, write_manifest
from morphad.data.split.roles import split_manifest
from morphad.data.split.sessions import session_facts
from morphad.settings import LineSettings
from morphad.steps.common import Figures, frozen_holdout
from morphad.steps.paths import LinePaths


def split(settings: LineSettings, paths: LinePaths, seed: int) -> Figures:
    """Give every image its role; the holdout, once frozen, stays as it is.

    Raises:
        CheckFailedError: An image of the frozen holdout is gone, or copies contradict each other.
        BadInputError: Too few good images for three roles.
    """
    frozen = frozen_holdout(paths.holdout) if paths.holdout.exists() and not settings.split.renew_holdout else None
    rows, frozen = split_manifest(read_manifest(paths.manifest), settings.split, seed, frozen)
    write_manifest(rows, paths.split)
    write_json(paths.holdout, frozen.to_json())
    pending = rows[rows["pending"] != ""] if "pending" in rows else rows.iloc[:0]
    remarks = [f"{row.path} is of the frozen holdout: {row.pending}" for row in pending.itertuples()]
    return {
        "holdout_id": frozen.id,
        **{str(role): int(count) for role, count in rows["role"].value_counts().items()},
        "warnings": [*remarks, *session_facts(rows, settings.split.by).warnings()],
    }
