"""The verb for what of a line's pictures is inspected."""

import argparse
from pathlib import Path

from morphad.base.verbs import Verbs
from morphad.cli.shared import open_line


def add_verbs(verbs: Verbs) -> None:
    """Add the verb."""
    region = verbs.add_for_line(
        "region",
        _region,
        "draw what of a picture is inspected; turn a painted template into train.region",
        "pv-mono --from reports/pv-mono/region-template.png",
    )
    region.add_argument(
        "--from",
        dest="painted",
        type=Path,
        metavar="PAINTED.png",
        help="the template, painted: green is inspected, red is ignored; prints train.region",
    )
    region.add_argument("--out", type=Path, metavar="FOLDER", help="for the pictures; default: reports/LINE")


def _region(options: argparse.Namespace) -> None:
    from morphad.base.wording import counted, percent
    from morphad.jobs.region import as_yaml, draw_region

    _, settings, paths = open_line(options)
    drawn = draw_region(settings, paths, options.out or paths.report, options.painted)
    mark = "# " if options.painted is not None else ""  # what is printed is YAML then
    what = f"{percent(drawn.share)} of the picture" if drawn.region is not None else "the whole picture"
    by = "" if drawn.region is not None else " (no train.region)"
    print(f"{mark}{options.line}: {what} is inspected{by}")
    if drawn.differs is not None:
        print(f"{mark}the shapes differ from the paint in {percent(drawn.differs, 2)} of the picture")
    height, width = drawn.size
    print(f"{mark}picture: {drawn.picture} (mean of {counted(drawn.averaged, 'good picture')}, {height} x {width} px)")
    if drawn.anchor:
        print(f"{mark}parts are put where the picture {drawn.anchor} has its own: train.region.anchor")
    if options.painted is not None and drawn.region is not None:
        print(f"# if the picture shows what you mean, put this into params.yaml under lines.{options.line}.train:")
        print(as_yaml(drawn.region))
        return
    print(f"template: {drawn.template}{' (was there, and is as it was)' if drawn.kept else ''}")
    print(
        "next: paint on the template in pure green what is to be inspected, in pure red what is to be ignored, then\n"
        f"morphad region {options.line} --from {drawn.template}"
    )
