"""The verbs of the pipeline's steps: what `dvc repro` runs."""

import argparse
import time
from collections.abc import Callable, Iterator

from morphad.base.errors import CheckFailedError
from morphad.base.verbs import Verb, Verbs
from morphad.base.wording import counted
from morphad.cli.shared import actor, add_actor, add_data_docs, left_aside, on_record, open_line


def add_verbs(verbs: Verbs) -> None:
    """Add one verb a step."""
    verbs.add_for_line("settings", _settings, "write what each step reads of the line's settings")
    verbs.add_for_line("ingest", _timed(_ingest), "bring a line's snapshot of images up to date and describe them")
    validate = verbs.add_for_line("validate", _timed(_validate), "hold the line's images against the data contract")
    add_data_docs(validate)
    verbs.add_for_line("split", _timed(_split), "give every image its role; the holdout stays frozen")
    verbs.add_for_line("train", _timed(_train), "learn from good images; resumes where it was killed")
    verbs.add_for_line("calibrate", _timed(_calibrate), "set the threshold for the false-reject rate")
    verbs.add_for_line("evaluate", _timed(_evaluate), "measure on the holdout and write the page")
    register = verbs.add_for_line(
        "register",
        _timed(_register),
        "record the run and register the model as challenger",
        'pv-mono --reason "a new lamp"',
    )
    register.add_argument(
        "--reason", type=on_record, default="manual", help="why it was trained, for the record; default: manual"
    )
    add_actor(register)
    promote = verbs.add_for_line(
        "promote", _timed(_promote), "hold the challenger against the champion and act on it", "pv-mono --record"
    )
    promote.add_argument("--record", action="store_true", help="a refusal is a recorded decision, exit code 0")
    add_actor(promote)


def _settings(options: argparse.Namespace) -> None:
    from morphad.steps.reads import write_settings

    project, settings, paths = open_line(options)
    write_settings(settings, paths, project.seed)
    print(f"{options.line}: settings of every step in {paths.settings}")


def _timed(step: Callable[[argparse.Namespace], Iterator[str]]) -> Verb:
    """A verb that prints what a step has to say, and at the end of that how long the step took."""

    def verb(options: argparse.Namespace) -> None:
        start = time.monotonic()
        said = "\n".join(step(options))
        print(f"{said} ({time.monotonic() - start:.1f} s)")

    return verb


def _ingest(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps.ingest import ingest

    project, settings, paths = open_line(options)
    figures = ingest(settings, paths, project.seed)
    yield (
        f"{options.line}: {figures['good']} good and {figures['defect']} defect images, {figures['rejects']} left out, "
        f"data {figures['data_hash'][:12]}; {figures['new']} new, {figures['changed']} changed, {figures['gone']} gone"
    )
    if aside := figures["aside"]:
        yield f"{options.line}: {left_aside(aside)}"
    if settings.ingest.verdicts:
        yield f"{options.line}: operators' verdicts on {counted(figures['verdicts'], 'image')}"
    for remark in figures["remarks"]:
        yield f"{options.line}: warning: {remark}"
    if figures["licence"]:
        yield figures["licence"]


def _validate(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps.validate import validate

    project, settings, paths = open_line(options)
    figures = validate(settings, paths, project.seed, data_docs=options.data_docs)
    for warning in figures["warnings"]:
        yield f"{options.line}: warning: {warning}"
    yield f"{options.line}: the data keeps its contract"


def _split(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps.split import split

    project, settings, paths = open_line(options)
    figures = split(settings, paths, project.seed)
    roles = ", ".join(f"{figures.get(role, 0)} {role}" for role in ("train", "calibration", "holdout", "excluded"))
    yield f"{options.line}: {roles}; holdout {figures['holdout_id'][:12]}"
    for warning in figures["warnings"]:
        yield f"{options.line}: warning: {warning}"


def _train(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps.train import train

    project, settings, paths = open_line(options)
    figures = train(settings, paths, project.seed)
    if "warning" in figures:
        yield f"{options.line}: warning: {figures['warning']}"
    accuracy = figures.get("case_accuracy")
    said = "" if accuracy is None else f"; names {accuracy:.1%} of the morphological cases"
    yield f"{options.line}: fitted{said}"


def _calibrate(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps.calibrate import calibrate

    project, settings, paths = open_line(options)
    figures = calibrate(settings, paths, project.seed)
    threshold = "no threshold" if figures["threshold"] is None else f"threshold {figures['threshold']:.4g}"
    yield f"{options.line}: {threshold}: {figures['guarantee']}"


def _evaluate(options: argparse.Namespace) -> Iterator[str]:
    from morphad.report.verdict import read_verdict
    from morphad.steps.evaluate import evaluate

    project, settings, paths = open_line(options)
    evaluate(settings, paths, project.seed)
    yield f"{options.line}: {read_verdict(paths.report, paths.detector).sentence}\n  {paths.report / 'index.html'}"


def _register(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps import experiments
    from morphad.steps.register import register

    project, settings, paths = open_line(options)
    if experiments.aside():
        yield f"{options.line}: {experiments.leave_unregistered(paths)}"
        return
    figures = register(settings, paths, project.seed, reason=options.reason, actor=actor(options))
    said = "registered as challenger" if figures["created"] else "is in the registry already"
    yield f"{options.line}: {figures['model_name']} version {figures['version']} {said}"


def _promote(options: argparse.Namespace) -> Iterator[str]:
    from morphad.steps import experiments
    from morphad.steps.promote import promote

    project, settings, paths = open_line(options)
    if experiments.aside():
        yield f"{options.line}: {experiments.leave_undecided(paths)}"
        return
    figures = promote(settings, paths, project.seed, actor=actor(options))
    reasons = " ".join(figures["reasons"])
    if figures["outcome"] == "proposed":
        reasons = (
            f"Version {figures['version']} passed the gate and awaits approval by somebody else: "
            f"morphad approve {options.line} --why ... {reasons}"
        )
    if not figures["promote"] and not options.record:
        raise CheckFailedError(f"{options.line}: {reasons}")
    yield f"{options.line}: {reasons}"
