"""`morphad pipeline upload`, `submit`, `submit-batch` and `status`: the compiled pipelines in Kubeflow."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from morphad.base.errors import BadInputError, ServiceError
from morphad.base.text import masked
from morphad.base.verbs import Verbs
from morphad.jobs.batch import MOST_SHARDS
from morphad.kubeflow.client import Kubeflow, Run
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.compiling import BATCH, NAMES, PIPELINES, TRAINING
from morphad.kubeflow.connection import NotFoundError
from morphad.kubeflow.lines import check_size, line_items
from morphad.kubeflow.options import add_remote, add_sources, open_compiled, open_kubeflow
from morphad.kubeflow.reach import check_batch, check_lines
from morphad.kubeflow.status import listed, told
from morphad.kubeflow.uploads import find_version, make_experiment, upload
from morphad.settings.reading import load_settings

_SEARCHED = 1000  # runs that are looked through for morphad's: Kubeflow cannot be asked for those alone


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline upload`, `submit`, `submit-batch` and `status`."""
    uploading = add_remote(
        verbs, "upload", _upload, "bring a compiled pipeline to Kubeflow, as a version", "--host http://localhost:8888"
    )
    uploading.add_argument("--pipeline", choices=PIPELINES, default=TRAINING, help="which one (default: training)")
    add_sources(uploading, lines=False)
    submit = add_remote(
        verbs, "submit", _submit, "start training in Kubeflow: one run for each line", "--lines pv-mono"
    )
    submit.add_argument("--lines", metavar="A,B", help="only these lines of the settings")
    submit.add_argument("--together", action="store_true", help="one run for all lines; one that fails may stop others")
    submit.add_argument("--seed", type=int, help="of the runs; default: that of the settings")
    submit.add_argument("--reason", default="manual", metavar="TEXT", help="why, for the records (default: manual)")
    submit.add_argument("--force", action="store_true", help="train although nothing is new since the last decision")
    batch = add_remote(
        verbs, "submit-batch", _submit_batch, "start a batch prediction in Kubeflow", "pv-mono s3://parts/today/"
    )
    batch.add_argument("line", metavar="LINE", help="a product line of the settings")
    batch.add_argument(
        "images",
        metavar="IMAGES",
        help="s3://bucket/prefix; a folder, or a .csv or .parquet with a column path, that pods have",
    )
    batch.add_argument("--root", default="", metavar="PLACE", help="where a table's paths begin; default: its folder")
    batch.add_argument("--shards", type=int, default=4, metavar="N", help="parts, each in its own pod (default: 4)")
    for parser, pipeline in ((submit, TRAINING), (batch, BATCH)):
        parser.set_defaults(pipeline=pipeline)
        add_sources(parser)
        parser.add_argument("--experiment", default="morphad", metavar="NAME", help="where the runs are listed")
        parser.add_argument("--version", metavar="NAME", help="an uploaded version; default: that of the compiled file")
    status = add_remote(verbs, "status", _status, "list runs of the pipelines, or the steps of one run", "--limit 5")
    status.add_argument("run", metavar="RUN", nargs="?", help="a run's identifier, or how it begins")
    status.add_argument("--limit", type=int, default=20, metavar="N", help="list at most so many runs (default: 20)")


def _upload(options: argparse.Namespace) -> None:
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version, new = upload(kubeflow, compiled)
    print(f"{version.name}: {'uploaded' if new else 'is there already, with the same content'}")


def _submit(options: argparse.Namespace) -> None:
    project = load_settings(options.params)
    items = line_items(project, None if options.lines is None else dict.fromkeys(options.lines.split(",")))
    seed = project.seed if options.seed is None else options.seed
    if not 0 <= seed < 2**31:
        raise BadInputError(f"--seed {seed}: expected a number from 0 to {2**31 - 1}")
    check_lines(project, [item["line"] for item in items], load_cluster(options.cluster))
    groups = [items] if options.together else [[item] for item in items]
    for group in groups:
        check_size("the run", {"lines": group}, "give fewer lines with --lines, or leave out --together")
    _start(
        options,
        {
            ", ".join(item["line"] for item in group): {
                "lines": group,
                "seed": seed,
                "reason": masked(options.reason),
                "force": options.force,
            }
            for group in groups
        },
    )


def _submit_batch(options: argparse.Namespace) -> None:
    (item,) = line_items(load_settings(options.params), [options.line])
    if not 1 <= options.shards <= MOST_SHARDS:
        raise BadInputError(f"--shards {options.shards}: expected a number from 1 to {MOST_SHARDS}")
    check_batch(options.images, options.root, load_cluster(options.cluster))
    given = {"line": options.line, "images": options.images, "root": options.root, "shards": options.shards}
    _start(options, {options.line: {**given, "settings_json": item["settings_json"]}})


def _start(options: argparse.Namespace, runs: dict[str, dict[str, Any]]) -> None:
    """Start runs of the uploaded pipeline that the options name: lines, and the parameters of their run."""
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version = find_version(kubeflow, options.pipeline, options.version or compiled.version)
    experiment = make_experiment(kubeflow, options.experiment)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    for number, (lines, parameters) in enumerate(runs.items()):
        try:
            run = kubeflow.create_run(f"{lines} {now}", experiment, version, parameters)
        except ServiceError as error:
            raise ServiceError(f"{error}{'; the runs above were started' if number else ''}") from error
        print(f"{lines}: run {run}", flush=True)


def _status(options: argparse.Namespace) -> None:
    if options.limit < 1:
        raise BadInputError(f"--limit {options.limit}: expected a number above 0")
    kubeflow = open_kubeflow(options)
    pipelines = _pipelines(kubeflow)
    if options.run is None:
        lines = listed(islice(_runs(kubeflow, pipelines), options.limit), pipelines, datetime.now(UTC))
    else:
        run = _find(kubeflow, options.run, pipelines)
        lines = told(run, pipelines.get(run.pipeline_id, TRAINING), datetime.now(UTC), kubeflow.connection.namespace)
    print("\n".join(lines))


def _pipelines(kubeflow: Kubeflow) -> dict[str, str]:
    """What has been uploaded: identifiers of pipelines in Kubeflow, and which they are."""
    found = {kubeflow.pipeline_id(name): pipeline for pipeline, name in NAMES.items()}
    return {identifier: pipeline for identifier, pipeline in found.items() if identifier is not None}


def _runs(kubeflow: Kubeflow, pipelines: dict[str, str]) -> Iterator[Run]:
    """The pipelines' runs, the newest first."""
    if not pipelines:
        raise BadInputError(
            f"{kubeflow.connection.host}: has no pipeline {' or '.join(NAMES.values())}; run `morphad pipeline upload` "
            "first"
        )
    return (run for run in islice(kubeflow.runs(), _SEARCHED) if run.pipeline_id in pipelines)


def _find(kubeflow: Kubeflow, name: str, pipelines: dict[str, str]) -> Run:
    try:
        return kubeflow.run(name)
    except NotFoundError as error:
        found = [run.id for run in _runs(kubeflow, pipelines) if run.id.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} runs begin so" if found else "no such run"
            raise BadInputError(f"run {name!r}: {what}; `morphad pipeline status` lists the runs") from error
        return kubeflow.run(found[0])
