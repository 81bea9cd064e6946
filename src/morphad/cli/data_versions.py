"""The verbs for versions of a line's data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.verbs import Verbs
from morphad.cli.shared import actor, add_actor

if TYPE_CHECKING:
    import pandas as pd

    from morphad.data.versions import Address


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    data = verbs.group("data", "versions of a line's data: make, bring back, compare, list", "log pv-mono")
    version = data.add(
        "version", _version, "make the line's snapshot a version that can be brought back anywhere", "pv-mono"
    )
    version.add_argument("line", metavar="LINE", help="a product line, ingested")
    version.add_argument("--remote", metavar="URL", help="where a new registry keeps the bytes; default: data.remote")
    add_actor(version)
    get = data.add("get", _get, "bring a version back: the same bytes, checked", "pv-mono@latest")
    get.add_argument(
        "version", metavar="LINE@VERSION", help="as `data log` shows it; LINE@latest; LINE@ and some digits"
    )
    get.add_argument("--out", type=Path, metavar="FOLDER", help="default: data/LINE of this project")
    get.add_argument("--replace", action="store_true", help="another snapshot that is there may be lost")
    diff = data.add(
        "diff", _diff, "what came, went and is said otherwise from one version to another", "pv-mono@latest pv-mono"
    )
    diff.add_argument("before", metavar="A", help="LINE@VERSION, or LINE for the snapshot in data/LINE")
    diff.add_argument("after", metavar="B", help="the same")
    diff.add_argument("--json", type=Path, metavar="FILE", help="write the whole difference here")
    log = data.add("log", _log, "list the versions of a line", "pv-mono")
    log.add_argument("line", metavar="LINE")
    for parser in (version, get, diff, log):
        parser.add_argument("--registry", metavar="URL", help="git repository of the versions; default: data.registry")
        parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the settings")


def _version(options: argparse.Namespace) -> None:
    from morphad.data.versions import make_version
    from morphad.steps.paths import LinePaths

    place = LinePaths.checkout(Path(), _line(options.line))
    version, new = make_version(
        options.line,
        _address(options, options.remote),
        manifest=place.manifest,
        snapshot_dir=place.snapshot,
        rejects=place.rejects,
        record=place.version,
        by=actor(options),
    )
    if new:
        print(f"{version.spelling}: {version.good} good and {version.defect} defect images, {_size(version.bytes)}")
    else:
        print(f"{options.line}: is version {version.spelling} already")


def _get(options: argparse.Namespace) -> None:
    from morphad.data.versions import get_version, parse_version
    from morphad.steps.paths import LinePaths

    line, name = parse_version(options.version)
    out = options.out or LinePaths.checkout(Path(), line).manifest.parent
    version, brought = get_version(_address(options), line, name, out, options.replace)
    said = f"{version.good} good and {version.defect} defect images" if brought else "is there already"
    print(f"{version.spelling}: {said}, in {out}")


def _diff(options: argparse.Namespace) -> None:
    from morphad.base.files import write_json
    from morphad.data.versions import compare

    before, after = (_manifest(text, options) for text in (options.before, options.after))
    difference = compare(before, after)
    if options.json:
        write_json(options.json, difference.to_json())
    for line in difference.in_words():
        print(line)


def _log(options: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from morphad.data.versions import list_versions

    address = _address(options)
    with TemporaryDirectory() as work:
        versions = list_versions(address, _line(options.line), Path(work))
    if not versions:
        print(f"{options.line}: no versions at {address.shown}; run `morphad data version {options.line}`")
    for version in versions:
        print(
            f"{version.spelling}  {version.created}  {version.good:>7} good {version.defect:>6} defect "
            f"{_size(version.bytes):>9}  data {version.data_hash[:12]}  by {version.by}"
        )


def _manifest(text: str, options: argparse.Namespace) -> "pd.DataFrame":
    from tempfile import TemporaryDirectory

    from morphad.data.manifest import read_manifest
    from morphad.data.versions import parse_version, read_version_manifest
    from morphad.steps.paths import LinePaths

    if "@" not in text:
        return read_manifest(LinePaths.checkout(Path(), _line(text)).manifest)
    with TemporaryDirectory() as work:
        return read_version_manifest(_address(options), *parse_version(text), Path(work))[1]


def _address(options: argparse.Namespace, remote: str | None = None) -> "Address":
    """Registry and remote; without a params.yaml, such as on another machine, the options and the environment do."""
    from morphad.data.versions import find_address
    from morphad.settings import DataSettings
    from morphad.settings.reading import load_settings

    there = options.params.exists() or options.params != Path("params.yaml")
    settings = load_settings(options.params).data if there else DataSettings()
    return find_address(settings, options.registry, remote)


def _line(name: str) -> str:
    from morphad.base.errors import BadInputError
    from morphad.settings import LINE_NAME

    if not LINE_NAME.fullmatch(name):
        raise BadInputError(f"{name!r}: a line's name holds a-z, 0-9 and inner hyphens, at most 63 characters")
    return name


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
