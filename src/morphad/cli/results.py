"""The verbs for what the steps brought about: versions, verdicts on images, summaries, benchmarks."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from morphad.base.errors import BadInputError
from morphad.base.verbs import Verbs
from morphad.cli.shared import open_line

if TYPE_CHECKING:
    from morphad.inspection import Model
    from morphad.settings import LineSettings


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    predict = verbs.add_for_line(
        "predict",
        _predict,
        "score images with the champion of a line or a model folder",
        "pv-mono camera/today --heatmaps heatmaps",
    )
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="an image file or a folder of such")
    predict.add_argument("--model", type=Path, metavar="FOLDER", help="a detector folder in place of the champion")
    predict.add_argument("--heatmaps", type=Path, metavar="FOLDER", help="write a heatmap PNG for each image here")
    batch = verbs.add_for_line(
        "batch-predict",
        _batch_predict,
        "score any number of images into one table",
        "pv-mono camera/today --out today.csv",
    )
    batch.add_argument("images", metavar="IMAGES", help="a folder, s3://bucket/prefix, or a .csv or .parquet of paths")
    batch.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table: .parquet or .csv")
    batch.add_argument("--root", default="", metavar="FOLDER", help="where a table's paths begin; default: its folder")
    batch.add_argument("--shards", type=int, default=1, help="parts; run again after a kill, whole ones are kept")
    batch.add_argument("--model", type=Path, metavar="FOLDER", help="a detector folder in place of the champion")
    serve = verbs.add_for_line("serve", _serve, "answer over HTTP with the champion of a line", "pv-mono --port 8080")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine only")
    serve.add_argument("--port", type=int, default=8080)
    verbs.add_for_project("summary", _summary, "what happened to every line, and what to do next", "")
    benchmark = verbs.add(
        "benchmark",
        _benchmark,
        "fit and score every set in MVTec AD layout",
        "mvtec --sets bottle,grid --out figures.json",
    )
    benchmark.add_argument("root", metavar="ROOT", type=Path, help="a folder of sets, or one set")
    benchmark.add_argument("--sets", metavar="a,b", help="only these folders of ROOT")
    benchmark.add_argument("--preset", choices=("default", "fast", "paper"), default="default")
    benchmark.add_argument("--seed", type=int, default=0)
    benchmark.add_argument("--out", type=Path, required=True, metavar="FILE.json")


def _predict(options: argparse.Namespace) -> None:
    from morphad.jobs.predict import find_to_predict, predict

    _, settings, _ = open_line(options)
    images = find_to_predict(options.images, options.heatmaps)
    unreadable = 0
    with _champion(options.line, settings) if options.model is None else _detector(options.model) as model:
        print("verdict\tp_value\tscore\timage")
        for path, answer in predict(model, images, settings.ingest):
            if answer.score is None:
                unreadable += 1
                print(f"{path}: {answer.error}", file=sys.stderr)
                continue
            verdict = {True: "reject", False: "accept", None: "undecided"}[answer.rejected]
            p_value = "-" if answer.p_value is None else f"{answer.p_value:.4f}"
            score = "-" if answer.reason else f"{answer.score:.4f}"
            print(f"{verdict}\t{p_value}\t{score}\t{path}")
            if answer.reason:
                print(f"{path}: {answer.reason}", file=sys.stderr)
    if unreadable:
        raise BadInputError(f"no verdict on {unreadable} of {len(images)} images, each named above; replace them")


@contextmanager
def _champion(line: str, settings: "LineSettings") -> "Iterator[Model]":
    """The version in service, fetched once, in a process of its own."""
    import tempfile

    from morphad.registry import Registry
    from morphad.registry.published import PublishedModel

    registry = Registry(settings.register_)
    champion = registry.serving(line)
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        folder = registry.download_model(champion, Path(scratch) / "model")
        print(f"# model: {champion.model_uri}", file=sys.stderr)
        with PublishedModel(folder, champion.model_uri) as model:
            yield model


@contextmanager
def _detector(folder: Path) -> "Iterator[Model]":
    """A detector's folder, in this process."""
    from morphad.inspection import DetectorModel
    from morphad.model.detector import Detector

    detector = Detector.load(folder)
    print(f"# model: {folder}", file=sys.stderr)
    yield DetectorModel(detector)


def _batch_predict(options: argparse.Namespace) -> None:
    from morphad.jobs import batch

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
    champion = registry.serving(options.line)
    # The version is settled here: a service that is to follow a promotion is started again.
    print(f"{options.line}: version {champion.number} of {registry.uri}", flush=True)
    serve(registry, champion, options.host, options.port)


def _summary(options: argparse.Namespace) -> None:
    from morphad.jobs.summary import summarise
    from morphad.settings.reading import load_settings

    print(summarise(load_settings(options.params), Path()))


def _benchmark(options: argparse.Namespace) -> None:
    from morphad.jobs.benchmark import run

    names = options.sets.split(",") if options.sets else None
    print(run(options.root, names, options.preset, options.seed, options.out))
