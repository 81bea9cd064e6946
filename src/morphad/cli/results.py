"""The verbs for what the steps brought about: versions, verdicts on images, summaries, benchmarks."""

import argparse
import os
from pathlib import Path

from morphad.cli.shared import Verbs, open_line
from morphad.errors import BadInputError


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    predict = verbs.add_for_line("predict", _predict, "score images with the champion of a line or a model folder")
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    predict.add_argument("--model", type=Path, metavar="FOLDER", help="a detector folder in place of the champion")
    predict.add_argument("--heatmaps", type=Path, metavar="FOLDER", help="write a heatmap PNG for each image here")
    batch = verbs.add_for_line("batch-predict", _batch_predict, "score any number of images into one table")
    batch.add_argument("images", metavar="IMAGES", help="a folder, s3://bucket/prefix, or a .csv or .parquet of paths")
    batch.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table: .parquet or .csv")
    batch.add_argument("--root", default="", metavar="FOLDER", help="where a table's paths begin; default: its folder")
    batch.add_argument("--shards", type=int, default=1, help="parts; run again after a kill, whole ones are kept")
    batch.add_argument("--model", type=Path, metavar="FOLDER", help="a detector folder in place of the champion")
    serve = verbs.add_for_line("serve", _serve, "answer over HTTP with the champion of a line")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine only")
    serve.add_argument("--port", type=int, default=8080)
    verbs.add_for_project("summary", _summary, "what happened to every line, and what to do next")
    benchmark = verbs.add("benchmark", _benchmark, "fit and score every set in MVTec AD layout")
    benchmark.add_argument("root", metavar="ROOT", type=Path, help="a folder of sets, or one set")
    benchmark.add_argument("--sets", metavar="a,b", help="only these folders of ROOT")
    benchmark.add_argument("--preset", choices=("default", "fast", "paper"), default="default")
    benchmark.add_argument("--seed", type=int, default=0)
    benchmark.add_argument("--out", type=Path, required=True, metavar="FILE.json")


def _predict(options: argparse.Namespace) -> None:
    import tempfile

    from morphad import steps
    from morphad.registry import Registry

    _, settings, _ = open_line(options)
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


def _batch_predict(options: argparse.Namespace) -> None:
    from morphad import batch

    _, settings, _ = open_line(options)
    figures = batch.predict(
        options.line,
        settings,
        options.images,
        options.root,
        out=options.out,
        shards=options.shards,
        detector=options.model,
    )
    print(f"{options.line}: {batch.told(figures)} by {figures['model']}: {options.out}")


def _serve(options: argparse.Namespace) -> None:
    from morphad.registry import Registry
    from morphad.registry.serving import serve
    from morphad.settings import RegisterSettings

    # A container that serves has the address in its environment and no project folder.
    if os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        settings = RegisterSettings()
    else:
        settings = open_line(options)[1].register_
    registry = Registry(settings)
    champion = registry.champion(options.line)
    if champion is None:
        raise BadInputError(
            f"{options.line}: no champion at {registry.uri}; promote a version (morphad promote {options.line}), or "
            "correct the line's name or MLFLOW_TRACKING_URI"
        )
    # The version is settled here: a service that is to follow a promotion is started again.
    print(f"{options.line}: version {champion.number} of {registry.uri}", flush=True)
    serve(registry, champion, options.host, options.port)


def _summary(options: argparse.Namespace) -> None:
    from morphad.params import load_settings
    from morphad.summary import summarise

    print(summarise(load_settings(options.params), Path()))


def _benchmark(options: argparse.Namespace) -> None:
    from morphad.benchmark import run

    names = options.sets.split(",") if options.sets else None
    print(run(options.root, names, options.preset, options.seed, options.out))
