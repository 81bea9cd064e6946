"""What every model is measured by: the same images, the same figures, and where they were measured."""

import argparse
import subprocess
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morphad.base.files import read_json, write_json
from morphad.jobs.benchmark import fresh_process, measure

RESAMPLES = 1000  # behind the interval of an image AUROC

Row = dict[str, Any]


def chosen(parser: argparse.ArgumentParser, what: str, given: str, known: Collection[str]) -> list[str]:
    """The names in `given`, which commas part; one that is not known ends the program with a word on it."""
    names = given.split(",")
    if unknown := set(names) - set(known):
        parser.error(f"no {what} {min(unknown)!r}; there are {', '.join(known)}")
    return names


def run_missing(jobs: Mapping[str, tuple[Callable[..., Row], tuple[Any, ...]]], out: Path) -> dict[str, Row]:
    """Run what `out` does not hold yet, each in a process of its own, and write after each; give all that it holds.

    Args:
        jobs: By the key of the run, a function of a module and its arguments.
        out: JSON, rows by their keys; those that are not among the jobs stay.
    """
    runs: dict[str, Row] = read_json(out) if out.exists() else {}
    for key, (function, arguments) in jobs.items():
        if key in runs:
            continue
        with fresh_process() as pool:
            row = pool.submit(function, *arguments).result()
        runs = {**(read_json(out) if out.exists() else {}), key: row}  # another program may have written meanwhile
        write_json(out, runs)
        print(f"{key}: AUROC {100 * row['image_auroc']:.1f}", flush=True)
    return runs


def measure_sets(
    program: str | None,
    kind: str,
    names: Collection[str],
    run: Callable[[str, Path, int], Row],
    seeds: str = "0",
) -> dict[str, Row]:
    """The command line of the programs over sets: measure what the file does not hold yet, and give all that it holds.

    Args:
        program: What it does, for --help.
        kind: What its names are, "model" or "variant".
        names: All of them, in the order in which they run, so that each is compared over as many sets as there are.
        run: Measures one of them on the set in a folder with a seed; a function of a module.
        seeds: Where none are given.
    """
    parser = argparse.ArgumentParser(description=program, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(f"--{kind}s", dest="names", default=",".join(names), help="of " + ", ".join(names))
    parser.add_argument("--seeds", default=seeds)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    jobs = {
        f"{folder.name}/{name}/{seed}": (run, (name, folder, int(seed)))
        for name in chosen(parser, kind, options.names, names)
        for seed in options.seeds.split(",")
        for folder in options.folders
    }
    return run_missing(jobs, options.out)


SQUARE = (224, 224)  # px that all models of a table see, whatever the pictures' shape


def measure_morphad(
    folder: Path,
    settings: Mapping[str, Any],
    seed: int,
    checkpoint: Path | None = None,
    *,
    anchor: NDArray[np.uint8] | None = None,
) -> Row:
    """Measure a detector with these training settings (a preset and what differs from it)."""
    row = measure(folder, settings, seed, RESAMPLES, checkpoint, anchor=anchor)
    return {**{key: row[key] for key in row if key not in {"peak_rss_mb", "n_train", "n_test"}}, **where()}


def how(started: float, fitted: float, scored: float, count: int) -> dict[str, Any]:
    """Times of a run, and where it was made."""
    return {
        "fit_seconds": round(fitted - started, 2),
        "images_per_second": round(count / (scored - fitted), 2),
        **where(),
    }


def where() -> dict[str, Any]:
    """With which revision and how many threads a run was made."""
    return {"threads": torch.get_num_threads(), "revision": revision()}


def revision() -> str:
    """Of the code that runs, short, with a plus where files differ from it; "" outside of a git repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/src", ":/benchmarks/*.py")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
