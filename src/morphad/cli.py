"""`morphad VERB`: a thin face of the steps. Heavy imports wait until a verb needs them."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphad import __version__
from morphad.errors import BadInputError, CheckFailedError, MorphadError

if TYPE_CHECKING:
    from morphad.settings import LineSettings, ProjectSettings
    from morphad.workspace import Workspace

EPILOG = """\
The steps of a line, in order: ingest, validate, split, train, calibrate, evaluate, register, promote.
`dvc repro` runs those that are needed, for every line of params.yaml.

exit codes: 0 done, 1 a gate or check said no, 2 wrong use or bad input, 3 a service did not answer
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and give the exit code."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()  # here, because at the interpreter's end it is too late to catch what it raises
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.verb(options) or 0)
    except MorphadError as error:
        print(f"morphad {options.name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"morphad {options.name}: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="morphad",
        description="From a folder of good pictures to a promoted, explainable inspection model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphad {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="name")

    def add(name: str, verb: Callable[[argparse.Namespace], int | None], about: str, line: bool = True) -> Any:
        sub = verbs.add_parser(name, help=about, description=about)
        sub.set_defaults(verb=verb)
        if line:
            sub.add_argument("line", metavar="LINE", help="a product line of the settings")
            sub.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the settings")
        return sub

    add("ingest", _ingest, "copy a line's images into a snapshot and describe them")
    add("validate", _validate, "hold the line's images against the data contract")
    add("split", _split, "give every image its role; the holdout stays frozen")
    add("train", _train, "learn from good images; resumes where it was killed")
    add("calibrate", _calibrate, "set the threshold for the false-reject rate")
    add("evaluate", _evaluate, "measure on the holdout and write the page")
    add("register", _register, "record the run and register the model as challenger")
    promote = add("promote", _promote, "hold the challenger against the champion and act on it")
    promote.add_argument("--record", action="store_true", help="a refusal is a recorded decision, exit code 0")
    promote.add_argument("--actor", default=None, help="who promotes, for the record; default: the user")
    rollback = add("rollback", _rollback, "put the champion before this one back in service")
    rollback.add_argument("--why", required=True, help="the reason, for the record")
    rollback.add_argument("--actor", default=None, help="who rolls back, for the record; default: the user")
    add("history", _history, "list the versions of a line with their decisions")
    predict = add("predict", _predict, "score images with the champion of a line or a model folder")
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    predict.add_argument("--model", type=Path, metavar="FOLDER", help="a detector folder in place of the champion")
    predict.add_argument("--heatmaps", type=Path, metavar="FOLDER", help="write a heatmap PNG for each image here")
    summary = add("summary", _summary, "what happened to every line, and what to do next", line=False)
    summary.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the settings")
    benchmark = add("benchmark", _benchmark, "fit and score every set in MVTec AD layout", line=False)
    benchmark.add_argument("root", metavar="ROOT", type=Path, help="a folder of sets, or one set")
    benchmark.add_argument("--sets", metavar="a,b", help="only these folders of ROOT")
    benchmark.add_argument("--preset", choices=("default", "paper"), default="default")
    benchmark.add_argument("--seed", type=int, default=0)
    benchmark.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    return parser


def _open(options: argparse.Namespace) -> "tuple[ProjectSettings, LineSettings, Workspace]":
    from morphad.settings import load_settings
    from morphad.workspace import Workspace

    project = load_settings(options.params)
    return project, project.line(options.line), Workspace(Path(), options.line)


def _ingest(options: argparse.Namespace) -> None:
    from morphad import steps

    _, settings, place = _open(options)
    figures = steps.ingest(
        options.line, settings.ingest, snapshot_dir=place.snapshot, manifest=place.manifest, rejects=place.rejects
    )
    print(
        f"{options.line}: {figures['good']} good and {figures['defect']} defect images, "
        f"{figures['rejects']} left out, data {figures['data_hash'][:12]}"
    )
    if figures["licence"]:
        print(figures["licence"])


def _validate(options: argparse.Namespace) -> None:
    from morphad import steps

    _, settings, place = _open(options)
    figures = steps.validate(options.line, settings.validate_, manifest=place.manifest, validation=place.validation)
    for warning in figures["warnings"]:
        print(f"{options.line}: warning: {warning}")
    print(f"{options.line}: the data keeps its contract")


def _split(options: argparse.Namespace) -> None:
    from morphad import steps

    project, settings, place = _open(options)
    figures = steps.split(
        settings.split, project.seed, manifest=place.manifest, split=place.split, holdout=place.holdout
    )
    roles = ", ".join(f"{figures.get(role, 0)} {role}" for role in ("train", "calibration", "holdout", "excluded"))
    print(f"{options.line}: {roles}; holdout {figures['holdout_id'][:12]}")


def _train(options: argparse.Namespace) -> None:
    from morphad import steps

    project, settings, place = _open(options)
    figures = steps.train(
        options.line,
        settings.train,
        settings.ingest,
        project.seed,
        split=place.split,
        snapshot_dir=place.snapshot,
        fitted=place.fitted,
        checkpoint=place.checkpoint,
    )
    accuracy = figures.get("case_accuracy")
    told = "" if accuracy is None else f"; names {accuracy:.1%} of the morphological cases"
    print(f"{options.line}: fitted{told}")


def _calibrate(options: argparse.Namespace) -> None:
    from morphad import steps

    _, settings, place = _open(options)
    figures = steps.calibrate(
        options.line,
        settings.calibrate,
        settings.ingest,
        split=place.split,
        snapshot_dir=place.snapshot,
        fitted=place.fitted,
        detector=place.detector,
    )
    threshold = "no threshold" if figures["threshold"] is None else f"threshold {figures['threshold']:.4g}"
    print(f"{options.line}: {threshold}: {figures['guarantee']}")


def _evaluate(options: argparse.Namespace) -> None:
    from morphad import steps

    project, settings, place = _open(options)
    steps.evaluate(
        options.line,
        settings,
        project.seed,
        split=place.split,
        snapshot_dir=place.snapshot,
        rejects=place.rejects,
        holdout=place.holdout,
        detector=place.detector,
        report=place.report,
    )
    print(f"{options.line}: {steps.verdict_of(place.report, place.detector).sentence}\n  {place.report / 'index.html'}")


def _register(options: argparse.Namespace) -> None:
    from morphad import steps

    _, settings, place = _open(options)
    figures = steps.register(
        options.line,
        settings,
        split=place.split,
        holdout=place.holdout,
        detector=place.detector,
        report=place.report,
        registration=place.registration,
    )
    told = "registered as challenger" if figures["created"] else "is in the registry already"
    print(f"{options.line}: {figures['model_name']} version {figures['version']} {told}")


def _promote(options: argparse.Namespace) -> None:
    from morphad import steps

    project, settings, place = _open(options)
    figures = steps.promote(
        options.line,
        settings.register_,
        settings.promote,
        settings.ingest,
        project.seed,
        split=place.split,
        snapshot_dir=place.snapshot,
        holdout=place.holdout,
        detector=place.detector,
        registration=place.registration,
        decision=place.decision,
        actor=_actor(options),
    )
    reasons = " ".join(figures["reasons"])
    if not figures["promote"] and not options.record:
        raise CheckFailedError(f"{options.line}: {reasons}")
    print(f"{options.line}: {reasons}")


def _rollback(options: argparse.Namespace) -> None:
    from morphad.registry import Registry

    _, settings, _ = _open(options)
    version = Registry(settings.register_).rollback(options.line, options.why, _actor(options))
    print(f"{options.line}: version {version.number} is champion again")


def _history(options: argparse.Namespace) -> None:
    from morphad.registry import Registry

    _, settings, _ = _open(options)
    registry = Registry(settings.register_)
    versions = registry.history(options.line)
    if not versions:
        print(f"{options.line}: no versions at {registry.uri}; run `dvc repro`")
    for version in versions:
        aliases = ", ".join(version.aliases) or "-"
        print(f"{version.number:>4}  {version.created_at}  {aliases:<20}  data {version.data_hash[:12]}")
        for decision in version.decisions:
            print(
                f"      {decision.get('at', '')}  {decision.get('action', '')} by {decision.get('by', '')}: "
                f"{' '.join(decision.get('reasons', []))[:200]}"
            )


def _predict(options: argparse.Namespace) -> None:
    import tempfile

    from morphad import steps
    from morphad.registry import Registry

    _, settings, _ = _open(options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model
        if folder is None:
            registry = Registry(settings.register_)
            champion = registry.champion(options.line)
            if champion is None:
                raise BadInputError(
                    f"{options.line}: no champion at {registry.uri}; run `dvc repro` or give --model FOLDER"
                )
            folder = registry.download(champion, Path(scratch) / "champion")
        print("verdict\tp_value\tscore\timage")
        for path, prediction in steps.predict(folder, options.images, settings.ingest, options.heatmaps):
            verdict = {True: "reject", False: "accept", None: "undecided"}[prediction.rejected]
            p_value = "-" if prediction.p_value is None else f"{prediction.p_value:.4f}"
            print(f"{verdict}\t{p_value}\t{prediction.score:.4f}\t{path}")


def _summary(options: argparse.Namespace) -> None:
    from morphad.settings import load_settings
    from morphad.summary import summarise

    print(summarise(load_settings(options.params), Path()))


def _benchmark(options: argparse.Namespace) -> None:
    from morphad.benchmark import run

    names = options.sets.split(",") if options.sets else None
    print(run(options.root, names, options.preset, options.seed, options.out))


def _actor(options: argparse.Namespace) -> str:
    if options.actor:
        return str(options.actor)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
