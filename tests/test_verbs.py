"""The verbs of the command line: what is mistyped is asked about, and every example of a help page can be typed."""

import argparse
import contextlib
import io
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphad.base.wording import did_you_mean
from morphad.cli import _parser, main


def _below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one
                yield from _below(one)


def _all() -> list[tuple[argparse.ArgumentParser, argparse.ArgumentParser]]:
    """Each parser of a verb or of a group of verbs, with the parser that it is a part of."""
    main_parser = _parser()
    found = [
        (main_parser, one) for one in _below(main_parser) if one.prog not in {"morphad pipeline", "morphad schedule"}
    ]
    with contextlib.suppress(ImportError):
        from morphad.kubeflow.cli import _parser as kubeflow_parser

        found += [(kubeflow_parser(), one) for one in _below(kubeflow_parser())]
    return found


@pytest.mark.parametrize(("whole", "parser"), _all(), ids=lambda parser: parser.prog)
def test_the_example_of_every_verb_is_one(whole: argparse.ArgumentParser, parser: argparse.ArgumentParser) -> None:
    [example] = [line for line in parser.format_help().splitlines() if line.startswith("example: ")]
    command = example.removeprefix("example: ")
    assert command.startswith(parser.prog)
    options = whole.parse_args(shlex.split(command)[1:])
    assert callable(options.verb)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian", "pv-mono"], "invalid choice: 'trian'; did you mean train?"),
        (["Train", "pv-mono"], "invalid choice: 'Train'; did you mean train?"),
        (["data", "lgo", "pv-mono"], "invalid choice: 'lgo'; did you mean log?"),
        (["benchmark", "x", "--out", "y", "--preset", "fsat"], "invalid choice: 'fsat'; did you mean fast?"),
        (["zzz"], "invalid choice: 'zzz' (choose from "),
    ],
)
def test_a_mistyped_word_is_asked_about(words: list[str], told: str) -> None:
    error = io.StringIO()
    with contextlib.redirect_stderr(error), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert told in error.getvalue()


@pytest.mark.parametrize(
    "words", ["status", "history a", "champion a", "summary", "predict a x.png", "prune a", "registry repair a"]
)
def test_what_only_reads_makes_nothing(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("lines: {a: {ingest: {path: x}}}\n")
    assert main(words.split()) == (0 if words == "summary" else 2)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("zone", "did you mean time_zone?"),
        ("trian", "did you mean train?"),
        ("Owner", "did you mean owner?"),
        ("xyzzy", ""),
    ],
)
def test_what_was_meant(typed: str, said: str) -> None:
    assert did_you_mean(typed, ["owner", "time_zone", "train", "schedules"]) == said
