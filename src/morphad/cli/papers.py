"""The verbs for a quality manager's papers: the dossier of a version, and whether one is as it was written."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.errors import CheckFailedError
from morphad.base.verbs import Verbs
from morphad.cli.shared import actor, add_actor, open_line

if TYPE_CHECKING:
    from morphad.registry.dossier_check import Checked, DossierFinding


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    dossier = verbs.add_for_line(
        "dossier",
        _dossier,
        "write all that was decided about a version, and on what, to a zip",
        "pv-mono 3 --out pv-mono-3.zip",
    )
    dossier.add_argument("version", metavar="VERSION", type=int)
    dossier.add_argument("--out", type=Path, required=True, metavar="FILE.zip")
    dossier.add_argument("--with-model", action="store_true", help="the model itself as well, with its weights")
    add_actor(dossier)
    verify = verbs.add_for_project(
        "verify", _verify, "check that a dossier is as it was written", "pv-mono-3.zip --against pv-mono"
    )
    verify.add_argument("file", metavar="FILE.zip", type=Path)
    verify.add_argument("--against", metavar="LINE", help="hold it against this line's registry as well")


def _dossier(options: argparse.Namespace) -> None:
    from morphad.registry import Registry
    from morphad.registry.sentences import printable

    registry = Registry(open_line(options)[1].register_)
    facts, fingerprint = registry.dossier(
        options.line, options.version, options.out, actor(options), with_model=options.with_model
    )
    print(f"{options.line}: version {options.version}, {facts.decisions} decisions of the line: {options.out}")
    for what, why in facts.missing.items():
        print(f"  missing: {what}: {printable(why)}")
    for difference in facts.differences:
        print(f"  warning: {difference}")
    print(f"fingerprint {fingerprint}: note it elsewhere; `morphad verify` shows it again")


def _verify(options: argparse.Namespace) -> None:
    from morphad.registry.dossier_check import verify

    checked = verify(options.file)
    findings, now = list(checked.findings), list[str]()
    if options.against is not None:
        against, now = _against(options, checked)
        findings += against
    for finding in findings:
        mark = {True: "ok", False: "WRONG", None: "-"}[finding.passed]
        print(f"{mark:<5}  {finding.what}: {finding.said}")
    for said in checked.state:
        print(f"By the dossier: {said}")
    for said in now:
        print(f"By the registry now: {said}")
    print(f"fingerprint {checked.fingerprint or 'not known'}")
    if options.against is None:
        print(
            "Not checked: whether all of it was written anew, or its trail cut short and the rest made to fit. "
            "Compare the fingerprint with one that was noted, or add --against LINE."
        )
    wrong = [finding for finding in findings if finding.passed is False]
    if wrong:
        raise CheckFailedError(f"{options.file}: not as it was written: {wrong[0].said}")


def _against(options: argparse.Namespace, checked: "Checked") -> "tuple[list[DossierFinding], list[str]]":
    """What the registry says of a dossier, and of its version now."""
    from morphad.registry import Registry
    from morphad.registry.dossier_check import hold_against
    from morphad.registry.sentences import printable, state
    from morphad.settings.reading import load_settings

    registry = Registry(load_settings(options.params).line(options.against).register_)
    trail = registry.trail(options.against)
    number = None if checked.facts is None else checked.facts.version
    version = next((there for there in registry.history(options.against) if there.number == number), None)
    now = [] if number is None else [printable(said) for said in state(number, trail.entries)]
    return hold_against(checked, trail, version), now
