"""`morphad pipeline upload`, `submit` and `submit-batch`: the compiled pipelines in Kubeflow."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from morphad.base.errors import BadInputError, CheckFailedError, ServiceError
from morphad.base.text import masked
from morphad.base.verbs import Verbs
from morphad.jobs.batch import MOST_SHARDS
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.cluster import load_cluster
from morphad.kubeflow.compiling import BATCH, PIPELINES, TRAINING
from morphad.kubeflow.finding import busy_with
from morphad.kubeflow.lines import check_size, line_items
from morphad.kubeflow.options import add_remote, add_sources, open_compiled, open_kubeflow
from morphad.kubeflow.outcomes import Outcomes, readable
from morphad.kubeflow.reach import check_batch, check_lines
from morphad.kubeflow.records import PipelineVersion
from morphad.kubeflow.uploads import find_version, make_experiment, upload
from morphad.kubeflow.waiting import wait_for_ends, wait_until_free
from morphad.settings.reading import load_settings


def add_verbs(verbs: Verbs) -> None:
    """Add `pipeline upload`, `submit` and `submit-batch`."""
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
    submit.add_argument("--force", action="store_true", help="train although nothing is new since the last decision")
    submit.add_argument(
        "--queue", action="store_true", help="wait for the end of another run of a line; default: refuse"
    )
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
        parser.add_argument("--reason", default="manual", metavar="TEXT", help="why, for the records (default: manual)")
        parser.add_argument("--experiment", default="morphad", metavar="NAME", help="where the runs are listed")
        parser.add_argument("--version", metavar="NAME", help="an uploaded version; default: that of the compiled file")
        parser.add_argument("--wait", action="store_true", help="wait for the end; exit code: that of what failed")


def _upload(options: argparse.Namespace) -> None:
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version, new = upload(kubeflow, compiled)
    print(f"{version.name}: {'uploaded' if new else 'is there already, with the same content'}")


def _submit(options: argparse.Namespace) -> int:
    project = load_settings(options.params)
    items = line_items(project, None if options.lines is None else dict.fromkeys(options.lines.split(",")))
    seed = project.seed if options.seed is None else options.seed
    if not 0 <= seed < 2**31:
        raise BadInputError(f"--seed {seed}: expected a number from 0 to {2**31 - 1}")
    check_lines(project, [item["line"] for item in items], load_cluster(options.cluster))
    groups = [items] if options.together else [[item] for item in items]
    for group in groups:
        check_size("the run", {"lines": group}, "give fewer lines with --lines, or leave out --together")
    return _start(
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


def _submit_batch(options: argparse.Namespace) -> int:
    (item,) = line_items(load_settings(options.params), [options.line])
    if not 1 <= options.shards <= MOST_SHARDS:
        raise BadInputError(f"--shards {options.shards}: expected a number from 1 to {MOST_SHARDS}")
    check_batch(options.images, options.root, load_cluster(options.cluster))
    keys = ("line", "images", "root", "shards")
    given = {**{key: getattr(options, key) for key in keys}, "reason": masked(options.reason)}
    return _start(options, {options.line: {**given, "settings_json": item["settings_json"]}})


def _start(options: argparse.Namespace, runs: dict[str, dict[str, Any]]) -> int:
    """Start runs of the uploaded pipeline that the options name: lines, and the parameters of their run."""
    compiled = open_compiled(options)
    kubeflow = open_kubeflow(options)
    version = find_version(kubeflow, options.pipeline, options.version or compiled.version)
    experiment = make_experiment(kubeflow, options.experiment)
    waiting = {lines: tuple(lines.split(", ")) for lines in runs} if options.pipeline == TRAINING else {}
    if waiting and not options.queue:
        _refuse_busy(kubeflow, version, waiting)
    started: dict[str, str] = {}
    todo = list(runs)
    while todo:
        free, parameters = todo, {}
        if waiting:
            free, asked = wait_until_free(kubeflow, version.pipeline_id, {name: waiting[name] for name in todo})
            parameters = {"free_at": asked}
        for lines in free:
            now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
            try:
                run = kubeflow.create_run(f"{lines} {now}", experiment, version, {**runs[lines], **parameters})
            except ServiceError as error:
                raise ServiceError(f"{error}{'; the runs above were started' if started else ''}") from error
            print(f"{lines}: run {run}", flush=True)
            started[run] = lines
        todo = [name for name in todo if name not in free]
    return _wait(kubeflow, options.pipeline, started) if options.wait else 0


def _refuse_busy(kubeflow: Kubeflow, version: PipelineVersion, waiting: Mapping[str, tuple[str, ...]]) -> None:
    """See that no other run works on the lines: the two would share checkpoint, holdout and memory."""
    lines = {line for each in waiting.values() for line in each}
    busy = list(busy_with(kubeflow, version.pipeline_id, lines))
    if busy:
        outcomes, said = Outcomes(kubeflow), []
        for run in busy:
            where = ", ".join(dict.fromkeys(each.how for each in outcomes.of(kubeflow.run(run.id), TRAINING)))
            names = ", ".join(line for line in run.lines if line in lines) or "all lines"
            said.append(f"{names}: run {run.id} is under way since {run.created:%Y-%m-%d %H:%M:%S} UTC ({where})")
        raise CheckFailedError(
            f"{'; '.join(said)}. Nothing was started: wait for its end, give --queue, or end it with `morphad pipeline "
            f"end {busy[0].id}`"
        )


def _wait(kubeflow: Kubeflow, pipeline: str, started: Mapping[str, str]) -> int:
    """Wait for the end of runs, say how each line ended, and give the highest exit code of them."""
    outcomes, codes = Outcomes(kubeflow), [0]
    for run in wait_for_ends(kubeflow, pipeline, started):
        for ending in readable(outcomes, run, pipeline):
            print(f"{ending.line or 'all lines'}: {ending.state}{f': {ending.how}' if ending.how else ''}", flush=True)
            codes.append(ending.exit_code)
    return max(codes)
