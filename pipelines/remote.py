"""`morphad pipeline upload`, `submit` and `status`: the compiled pipeline in Kubeflow."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from morphad.cli.shared import Verbs
from morphad.errors import BadInputError, ServiceError
from morphad.settings import load_settings
from pipelines.client import Kubeflow, Run
from pipelines.connection import NotFoundError
from pipelines.options import add_remote, add_sources, open_compiled, open_kubeflow
from pipelines.status import listed, told
from pipelines.training import PIPELINE, line_items
from pipelines.versions import find_version, make_experiment, upload

_SEARCHED = 1000  # runs that are looked through for the pipeline's: Kubeflow cannot be asked for those alone


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline upload`, `submit` and `status`."""
    add_sources(add_remote(verbs, "upload", _upload, "bring the compiled pipeline to Kubeflow, as a version"))
    submit = add_remote(verbs, "submit", _submit, "start runs of the uploaded pipeline, one for each line")
    add_sources(submit)
    submit.add_argument("--lines", metavar="A,B", help="only these lines of the settings")
    submit.add_argument("--together", action="store_true", help="one run for all lines; one that fails may stop others")
    submit.add_argument("--seed", type=int, help="of the runs; default: that of the settings")
    submit.add_argument("--reason", default="manual", metavar="TEXT", help="why, for the records (default: manual)")
    submit.add_argument("--experiment", default="morphad", metavar="NAME", help="where the runs are listed")
    submit.add_argument("--version", metavar="NAME", help="an uploaded version; default: that of the compiled pipeline")
    status = add_remote(verbs, "status", _status, "list runs of the pipeline, or the steps of one run")
    status.add_argument("run", metavar="RUN", nargs="?", help="a run's identifier, or how it begins")
    status.add_argument("--limit", type=int, default=20, metavar="N", help="list at most so many runs (default: 20)")


def _upload(options: argparse.Namespace) -> None:
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version, new = upload(kubeflow, compiled)
    print(f"{version.name}: {'uploaded' if new else 'is there already, with the same content'}")


def _submit(options: argparse.Namespace) -> None:
    project = load_settings(options.params)
    items = line_items(project, dict.fromkeys(options.lines.split(",")) if options.lines else None)
    seed = project.seed if options.seed is None else options.seed
    if not 0 <= seed < 2**31:
        raise BadInputError(f"--seed {seed}: expected a number from 0 to {2**31 - 1}")
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version = find_version(kubeflow, options.version or compiled.version)
    experiment = make_experiment(kubeflow, options.experiment)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    for number, group in enumerate([items] if options.together else [[item] for item in items]):
        lines = ", ".join(item["line"] for item in group)
        parameters = {"lines": group, "seed": seed, "reason": options.reason}
        try:
            run = kubeflow.create_run(f"{lines} {now}", experiment, version, parameters)
        except ServiceError as error:
            raise ServiceError(f"{error}{'; the runs above were started' if number else ''}") from error
        print(f"{lines}: run {run}", flush=True)


def _status(options: argparse.Namespace) -> None:
    if options.limit < 1:
        raise BadInputError(f"--limit {options.limit}: expected a number above 0")
    kubeflow = open_kubeflow(options)
    if options.run is None:
        lines = listed(islice(_runs(kubeflow), options.limit), datetime.now(UTC))
    else:
        lines = told(_find(kubeflow, options.run), datetime.now(UTC), kubeflow.connection.namespace)
    print("\n".join(lines))


def _runs(kubeflow: Kubeflow) -> Iterator[Run]:
    """The pipeline's runs, the newest first."""
    pipeline_id = kubeflow.pipeline_id(PIPELINE)
    if pipeline_id is None:
        raise BadInputError(
            f"{kubeflow.connection.host}: has no pipeline {PIPELINE}; run `morphad pipeline upload` first"
        )
    return (run for run in islice(kubeflow.runs(), _SEARCHED) if run.pipeline_id == pipeline_id)


def _find(kubeflow: Kubeflow, name: str) -> Run:
    try:
        return kubeflow.run(name)
    except NotFoundError as error:
        found = [run.id for run in _runs(kubeflow) if run.id.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} runs begin so" if found else "no such run"
            raise BadInputError(f"run {name!r}: {what}; `morphad pipeline status` lists the runs") from error
        return kubeflow.run(found[0])
