"""The verb that holds any images against the data contract."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.verbs import Verbs
from morphad.cli.shared import add_data_docs, left_aside

if TYPE_CHECKING:
    from morphad.jobs.check_folder import Rules


def add_verbs(verbs: Verbs) -> None:
    """Add the verb."""
    check = verbs.add_for_project(
        "check",
        _check,
        "hold any folder of images against the data contract",
        "camera/today --line pv-mono --page today.html",
    )
    check.add_argument(
        "place",
        metavar="FOLDER",
        type=Path,
        help="images in MVTec AD layout, in good/ and defect/, or flat; or a listing (.csv), or a manifest (.parquet)",
    )
    check.add_argument("--line", metavar="LINE", help="use the limits and the reference of this line of the settings")
    check.add_argument("--reference", metavar="MANIFEST|LINE", help="compare with these data: a manifest, or a line's")
    check.add_argument("--json", type=Path, metavar="FILE", help="write what was found here, for machines")
    check.add_argument("--page", type=Path, metavar="FILE", help="write a page that shows it here (HTML)")
    add_data_docs(check)


def _check(options: argparse.Namespace) -> int:
    from morphad.base.files import check_writable
    from morphad.data.source.layouts import endings
    from morphad.jobs.check_folder import check_folder

    for file in (options.json, options.page):
        if file is not None:
            check_writable(file)
    aside: list[str] = []
    result = check_folder(
        options.place, _rules(options), json=options.json, page=options.page, data_docs=options.data_docs, aside=aside
    )
    if aside:
        print(f"{options.place}: {left_aside(endings(aside))}")
    for finding in result.findings:
        print(f"{finding.severity}: {finding.name}: {finding.sentence}")
    errors, warnings = len(result.errors), len(result.warnings)
    said = "the data break their contract" if errors else "the data keep their contract"
    print(
        f"{options.place}: {said}: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}, "
        f"{result.counts['good']} good and {result.counts['defect']} defect images"
    )
    return 1 if errors else 0


def _rules(options: argparse.Namespace) -> "Rules":
    from morphad.data.manifest import read_manifest
    from morphad.jobs.check_folder import Rules, reference_of
    from morphad.settings import IngestSettings, ValidateSettings
    from morphad.settings.reading import load_settings
    from morphad.steps.paths import LinePaths

    reference = reference_of(options.reference) if options.reference else None
    if options.line is None:
        return Rules("", ValidateSettings(), IngestSettings(path=str(options.place)), reference)
    settings = load_settings(options.params).line(options.line)
    stored = LinePaths.checkout(Path(), options.line).reference
    if reference is None and stored.exists():
        reference = read_manifest(stored)
    return Rules(options.line, settings.validate_, settings.ingest, reference)
