"""The reference of the data contract: the champion's data, whoever made it champion."""

import tempfile
from pathlib import Path

from morphad.data.manifest import empty_manifest, manifest_id, read_manifest, write_manifest
from morphad.registry import NoRegistryError, Registry
from morphad.settings import LineSettings
from morphad.steps.paths import LinePaths


def follow_champion(settings: LineSettings, paths: LinePaths) -> str | None:
    """Make the champion's data the reference of the data contract, whoever made it champion.

    Returns:
        What could not be done, in a sentence; None where the reference is right.

    Raises:
        ServiceError: MLflow did not answer.
    """
    registry = Registry(settings.register_)
    try:
        champion = registry.champion(paths.line)
    except NoRegistryError:  # the first run of all: `register` makes it
        champion = None
    known = read_manifest(paths.reference) if paths.reference.exists() else None
    if champion is None:
        if known is None or len(known):
            no_reference(paths.reference)
        return None
    if known is not None and len(known) and manifest_id(known) == champion.data_hash:
        return None
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        manifest = registry.download_data(champion, Path(scratch) / "data")
        if manifest is None:
            no_reference(paths.reference)
            return (
                f"version {champion.number} was registered without its data, so new images are compared with no "
                "champion's until the next promotion"
            )
        write_manifest(read_manifest(manifest), paths.reference)
    return None


def no_reference(reference: Path) -> None:
    """No champion's data are known."""
    write_manifest(empty_manifest(), reference)
