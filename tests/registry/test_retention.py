"""What may be removed for good, and what never."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError, CheckFailedError
from morphad.registry import Registry, Retention
from morphad.registry.changes import Found
from morphad.registry.records import Actor, Version
from morphad.registry.retention import plan
from morphad.registry.standing import standing
from morphad.registry.trail import Action, Entry, Trail

NONE = Retention(newest=0, former=0, days=0)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def entry(action: Action, champion: int | None, days_ago: float, version: int | None = None) -> Entry:
    at = (NOW - timedelta(days=days_ago)).isoformat()
    return Entry(action, version or champion, "", champion, None, at, Actor("anna"), ())


def line_of(*entries: Entry, count: int = 9, **aliases: int) -> tuple[Found, list[Version]]:
    pointing = {**standing(entries).aliases, **aliases}
    there = [
        Version("morphad-x", n, "", "", tuple(alias for alias, number in pointing.items() if number == n), {})
        for n in range(1, count + 1)
    ]
    return Found(Trail("x", "", entries), standing(entries), pointing, ""), there


def test_what_serves_or_may_serve_again_stays_whatever_the_limits() -> None:
    entries = (entry("promoted", 2, 400), entry("promoted", 5, 300), entry("proposed", 5, 200, version=7))
    planned = plan(*line_of(*entries, challenger=8), NONE, NOW)
    assert planned.removed == (1, 3, 4, 6, 9)
    assert planned.kept == {2: "is previous", 5: "is champion", 7: "is candidate", 8: "is challenger"}


def test_newest_former_and_recently_served_stay() -> None:
    entries = tuple(entry("promoted", number, 100 - number * 10) for number in range(1, 9))
    assert plan(*line_of(*entries), NONE, NOW).removed == (1, 2, 3, 4, 5, 6, 9)
    assert plan(*line_of(*entries), Retention(newest=0, former=3, days=0), NOW).removed == (1, 2, 3, 4, 9)
    # 30 days ago version 7 took over from 6, so 6 still served then.
    assert plan(*line_of(*entries), Retention(newest=0, former=0, days=30), NOW).removed == (1, 2, 3, 4, 5, 9)
    assert plan(*line_of(*entries), Retention(newest=1, former=0, days=0), NOW).removed == (1, 2, 3, 4, 5, 6)


def test_a_version_that_was_rolled_back_lately_stays_for_services_that_still_run_it() -> None:
    entries = (entry("promoted", 1, 90), entry("promoted", 2, 60), entry("rolled back", 1, 2, version=2))
    planned = plan(*line_of(*entries, count=4), Retention(newest=0, former=0, days=30), NOW)
    assert planned.kept[2] == "was in service in the last 30 days"
    assert planned.removed == (3, 4)


def test_pruning_is_on_record_and_what_was_decided_can_still_be_told(
    client: MlflowClient, registry: Registry, line: str, add_versions: Callable[..., None]
) -> None:
    add_versions(6)
    for number in (1, 2, 3):
        registry.promote(line, number, {"reasons": ["better"]}, "anna")
    client.set_model_version_tag(f"morphad-{line}", "5", "morphad.keep", "shown to the customer")
    before = registry.trail(line).entries
    assert registry.plan_prune(line, NONE).removed == (1, 4, 6)
    assert [version.number for version in registry.history(line)] == [1, 2, 3, 4, 5, 6], "a plan removes nothing"
    assert registry.prune(line, NONE, "disk", "bert").removed == (1, 4, 6)
    assert [version.number for version in registry.history(line)] == [2, 3, 5]
    trail = registry.trail(line)
    assert trail.entries[:-1] == before
    assert (trail.head.action, trail.head.gone, trail.head.champion) == ("pruned", (1, 4, 6), 3)
    with pytest.raises(BadInputError, match=r"version 1 was never in service"):
        registry.rollback(line, "why", "bert", to=1)
    assert registry.rollback(line, "why", "bert").number == 2
    assert registry.prune(line, NONE, "again", "bert").removed == (3,)


def test_a_pruning_that_was_cut_off_is_finished_by_the_next(
    client: MlflowClient,
    registry: Registry,
    line: str,
    add_versions: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_versions(4)
    registry.promote(line, 4, {"reasons": ["better"]}, "anna")
    original = MlflowClient.delete_model_version

    def once(self: MlflowClient, name: str, version: str) -> None:
        if version != "1":
            raise MlflowException("gone away")
        original(self, name, version)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "delete_model_version", once)
        with pytest.raises(Exception, match="gone away"):
            registry.prune(line, NONE, "disk", "bert")
    assert [version.number for version in registry.history(line)] == [2, 3, 4]
    assert registry.prune(line, NONE, "disk", "bert").removed == (2, 3)
    assert [entry.action for entry in registry.trail(line).entries] == ["promoted", "pruned"]


def test_what_is_being_removed_is_not_promoted_and_goes_whatever_the_limits_say_then(
    registry: Registry, line: str, add_versions: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(3)
    registry.promote(line, 3, {"reasons": ["better"]}, "anna")
    tried = []

    def promote_first(self: MlflowClient, name: str, version: str) -> None:
        for act in (registry.promote, registry.propose):
            with pytest.raises(CheckFailedError, match=rf"version {version} is being removed for good: .*bert.*disk"):
                act(line, int(version), {"reasons": ["better"]}, "carl")
        tried.append(version)
        raise MlflowException("gone away")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "delete_model_version", promote_first)
        with pytest.raises(Exception, match="gone away"):
            registry.prune(line, NONE, "disk", "bert")
    assert tried == ["1"]
    assert registry.champion(line).number == 3
    assert registry.prune(line, Retention(newest=9), "disk", "bert").removed == (1, 2)
    assert [entry.action for entry in registry.trail(line).entries] == ["promoted", "pruned"]


def test_numbers_that_begin_anew_are_not_those_that_were_removed(
    client: MlflowClient, registry: Registry, line: str, add_versions: Callable[..., None]
) -> None:
    if not registry.uri.startswith("sqlite"):
        pytest.skip("a server with accounts answers for a model that is gone as for one that may not be seen")
    add_versions(2)
    registry.promote(line, 2, {"reasons": ["better"]}, "anna")
    registry.prune(line, NONE, "disk", "bert")
    client.delete_registered_model(f"morphad-{line}")
    registry.repair(line, "deleted by mistake", "bert")
    time.sleep(1.1)  # MLflow's moments are compared in whole seconds
    add_versions(1)
    assert registry.plan_prune(line, Retention(newest=1)).removed == ()
    assert registry.promote(line, 1, {"reasons": ["better"]}, "anna").number == 1


def test_a_clock_that_was_behind_does_not_make_a_version_old() -> None:
    entries = (entry("promoted", 1, 400), entry("promoted", 2, 1), entry("rolled back", 1, 9000, version=2))
    assert 2 in plan(*line_of(*entries, count=3), Retention(newest=0, former=0, days=30), NOW).kept
    entries = (entry("promoted", 1, 20), entry("promoted", 2, 9000), entry("taken out of service", None, 9000, 2))
    assert 2 in plan(*line_of(*entries, count=3), Retention(newest=0, former=0, days=30), NOW).kept
