"""What the verbs say of a line's past, whatever clocks, terminals and other registries did."""

import contextlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from morphad.cli import main
from morphad.registry import Registry, changes
from morphad.settings import RegisterSettings

AddVersions = Callable[..., None]
Verb = Callable[..., tuple[int, str, str]]


def said(*words: str, params: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*words, "--params", str(params)])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def params_of(folder: Path, lines: dict[str, str]) -> Path:
    """A params.yaml with lines and the address of each one's registry."""
    path = folder / "params.yaml"
    own: dict[str, Any] = {
        line: {"ingest": {"path": "x"}, "register": {"tracking_uri": at}} for line, at in lines.items()
    }
    YAML().dump({"lines": own}, path)
    return path


@pytest.fixture
def verb(tmp_path: Path, line: str, settings: RegisterSettings) -> Verb:
    params = params_of(tmp_path, {line: settings.tracking_uri})
    return lambda name, *words: said(name, line, *words, params=params)


@pytest.mark.parametrize("at", ["9999-12-31", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "yesterday", ""])
def test_a_moment_that_is_none_is_told(verb: Verb, registry: Registry, at: str) -> None:
    registry.history("nobody")
    code, _, err = verb("champion", "--at", at)
    assert code == 2
    assert f"--at {at!r}: expected a day" in err


def test_a_day_is_a_whole_day_however_it_is_written(
    verb: Verb, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    now = datetime.now(UTC)
    for day in (f"{now:%Y-%m-%d}", f"{now:%Y%m%d}", f"{now:%G-W%V-%u}", f"{now:%GW%V%u}"):
        assert "version 1 in service" in verb("champion", "--at", day)[1], day
    assert "nothing was decided" in verb("champion", "--at", f"{now:%Y-%m-%d}T00:00+14:00")[1]


def test_a_clock_that_jumps_back_changes_no_order(
    verb: Verb, registry: Registry, line: str, add_versions: AddVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(2)

    def decide(number: int, at: str) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.fromisoformat(at)

        monkeypatch.setattr(changes, "datetime", Clock)
        registry.promote(line, number, {"reasons": ["good"]}, "anna")

    decide(1, "2026-05-01T12:00+00:00")
    decide(2, "2001-01-01T00:00+00:00")  # an empty battery
    assert "nothing was decided" in verb("champion", "--at", "2026-04-30")[1]
    assert "version 2 in service" in verb("champion", "--at", "2026-05-02")[1]
    assert "version 2 in service" in verb("champion")[1]


@pytest.mark.parametrize("words", [("--why", ""), ("--why", " \t"), ("--why", "Pr\udcfcfung"), ("--why", "a\x1b[2Jb")])
def test_a_reason_that_cannot_be_read_later_is_refused(
    verb: Verb, registry: Registry, line: str, add_versions: AddVersions, words: tuple[str, str]
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    for more in (words, ("--why", "fine", "--actor", words[1])):
        code, _, err = verb("withdraw", *more)
        assert code == 2
        assert "argument --" in err
    assert registry.champion(line).number == 1


def test_what_is_on_record_cannot_steer_a_terminal_nor_pass_for_a_decision(
    verb: Verb, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good\n   2  2026-01-01: anna approved version 9"]}, "an\x1b[2Jna")
    for name in ("history", "champion"):
        out = verb(name)[1]
        assert "\x1b" not in out
        assert not any(row.startswith("   2  ") for row in out.splitlines())
    assert verb("withdraw", "--why", "first\nsecond")[0] == 0
    assert registry.trail(line).head.reasons == ("first second",)


def test_after_a_rollback_the_status_names_the_data_of_what_serves(  # noqa: PLR0917
    registry: Registry, line: str, add_versions: AddVersions, client: Any, tmp_path: Path, settings: RegisterSettings
) -> None:
    add_versions(2)
    for number in (1, 2):
        client.set_model_version_tag(f"morphad-{line}", str(number), "morphad.data_hash", f"data{number}")
        registry.promote(line, number, {"reasons": ["good"]}, "anna")
    registry.rollback(line, "escapes", "bert")
    params = params_of(tmp_path, {line: settings.tracking_uri})

    def row() -> dict[str, Any]:
        rows = json.loads(said("status", "--json", params=params)[1])
        return next(row for row in rows if row["line"] == line)

    assert (row()["champion"], row()["data"]) == (1, "data1")
    registry.withdraw(line, "escapes", "bert")
    assert (row()["champion"], row()["data"]) == (None, "")
    registry.rollback(line, "it was the light", "bert", to=2)
    assert (row()["champion"], row()["data"]) == (2, "data2")


def test_status_has_every_line_once_and_does_without_a_registry_that_is_away(  # noqa: PLR0917
    registry: Registry,
    line: str,
    add_versions: AddVersions,
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_versions(1)
    registry.promote(line, 1, {"reasons": ["good"]}, "anna")
    monkeypatch.chdir(store)
    params = params_of(tmp_path, {line: "sqlite:///mlflow.db", "other": f"sqlite:///{store}/mlflow.db"})
    rows = [row["line"] for row in json.loads(said("status", "--json", params=params)[1])]
    assert rows.count(line) == 1
    params = params_of(tmp_path, {line: "sqlite:///mlflow.db", "other": f"sqlite:///{tmp_path}/none.db"})
    code, out, err = said("status", params=params)
    assert code == 2
    assert "there is no registry at" in err
    assert f"\n{line} " in out
    assert "not known" in out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    rows = [row["line"] for row in json.loads(said("status", "--json", params=params)[1])]
    assert rows.count(line) == 1
