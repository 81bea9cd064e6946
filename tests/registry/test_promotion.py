"""Champion, previous and the audit trail, also when cut off at any call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from morphad.errors import BadInputError, CheckFailedError
from morphad.registry import Registry
from morphad.registry.promotion import PENDING
from morphad.settings import RegisterSettings

YES: dict[str, Any] = {"promote": True, "reasons": ["not inferior"], "figures": {"auroc_difference": [0.0, 0.1]}}
NO: dict[str, Any] = {"promote": False, "reasons": ["AUROC may be 0.1 lower"], "figures": {}}

CHANGES = (
    "log_dict",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)


class Killed(BaseException):
    """Stands for the end of the process: nothing in promotion handles it."""


@pytest.fixture
def client(settings: RegisterSettings, registry: Registry) -> MlflowClient:
    registry.champion("nobody")  # makes the tables
    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def add_versions(client: MlflowClient, registry: Registry, line: str, count: int) -> None:
    """Versions without a model behind them: promotion does not look into models."""
    with registry._connection.session():
        experiment = registry._connection.experiment_id()
    client.create_registered_model(f"morphad-{line}")
    for _ in range(count):
        run = client.create_run(experiment)
        client.create_model_version(f"morphad-{line}", source=run.info.artifact_uri, run_id=run.info.run_id)


@contextmanager
def killed_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let so many changing calls through, then end."""
    left = calls

    def limited(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in CHANGES:
            patched.setattr(MlflowClient, name, limited(getattr(MlflowClient, name)))
        yield


def in_service(client: MlflowClient, line: str, champion: int, previous: int) -> None:
    client.set_registered_model_alias(f"morphad-{line}", "champion", str(champion))
    client.set_registered_model_alias(f"morphad-{line}", "previous", str(previous))


def trail(registry: Registry, line: str) -> list[tuple[tuple[str, ...], list[str]]]:
    return [(v.aliases, [record["action"] for record in v.decisions]) for v in registry.history(line)]


def test_promotion_moves_the_old_champion_to_previous(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 2)
    registry.promote(line, 1, YES, "anna")
    assert registry.champion(line).number == 1
    client.set_registered_model_alias(f"morphad-{line}", "challenger", "2")
    promoted = registry.promote(line, 2, YES, "schedule")
    assert promoted.aliases == ("champion",)
    assert trail(registry, line) == [(("previous",), ["promoted"]), (("champion",), ["promoted"])]
    (record,) = promoted.decisions
    assert (record["by"], record["reasons"], record["replaced"], record["champion"]) == (
        "schedule",
        YES["reasons"],
        1,
        2,
    )


def test_decision_is_an_artifact_with_all_its_figures(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 1)
    version = registry.promote(line, 1, YES, "anna")
    from mlflow.artifacts import load_dict

    run = client.get_run(version.run_id)
    kept = load_dict(f"{run.info.artifact_uri}/{version.decisions[0]['artifact']}")
    assert kept["decision"] == YES
    assert kept["by"] == "anna"


def test_promoting_the_champion_again_changes_nothing(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 2)
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    before = trail(registry, line)
    registry.promote(line, 2, YES, "anna")
    assert trail(registry, line) == before


def test_refusal_is_recorded_once_and_aliases_stay(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 2)
    registry.promote(line, 1, YES, "anna")
    client.set_registered_model_alias(f"morphad-{line}", "challenger", "2")
    registry.refuse(line, 2, NO)
    registry.refuse(line, 2, NO)
    assert trail(registry, line) == [(("champion",), ["promoted"]), (("challenger",), ["refused"])]
    registry.refuse(line, 2, {**NO, "reasons": ["still worse"]})
    assert [record["reasons"] for record in registry.version(line, 2).decisions] == [NO["reasons"], ["still worse"]]


def test_rollback_brings_the_previous_champion_back(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 2)
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    assert registry.rollback(line, "escapes in lot 7", "bert").number == 1
    assert trail(registry, line) == [(("champion",), ["promoted"]), ((), ["promoted", "rolled back"])]
    assert registry.version(line, 2).decisions[-1]["reasons"] == ["escapes in lot 7"]
    with pytest.raises(CheckFailedError, match="no previous champion to go back to; version 1 stays champion"):
        registry.rollback(line, "again", "bert")
    assert registry.champion(line).number == 1


def test_rollback_without_any_champion(registry: Registry, line: str) -> None:
    with pytest.raises(CheckFailedError, match="nothing to roll back"):
        registry.rollback(line, "why not", "bert")


def test_version_that_is_not_there(client: MlflowClient, registry: Registry, line: str) -> None:
    add_versions(client, registry, line, 2)
    for call in (registry.promote, registry.refuse):
        with pytest.raises(BadInputError, match=f"no version 7 of morphad-{line}; versions registered: 1, 2"):
            call(line, 7, YES, "anna")
    with pytest.raises(BadInputError, match="versions registered: none"):
        registry.version("unheard-of", 1)


def test_promotion_cut_off_anywhere_keeps_a_champion_and_completes(
    client: MlflowClient, registry: Registry, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for calls in range(20):
        own = f"{line}-{calls}"
        add_versions(client, registry, own, 3)
        in_service(client, own, champion=2, previous=1)
        client.set_registered_model_alias(f"morphad-{own}", "challenger", "3")
        try:
            with killed_after(calls, monkeypatch):
                registry.promote(own, 3, YES, "anna")
            break
        except Killed:
            assert registry.champion(own).number in {2, 3}
        registry.promote(own, 3, YES, "anna")
        assert trail(registry, own) == [
            ((), []),
            (("previous",), []),
            (("champion",), ["promoted"]),
        ], f"cut off after {calls} calls"
        assert PENDING not in client.get_registered_model(f"morphad-{own}").tags
    assert calls >= 6, "the test no longer cuts anything off"


def test_rollback_cut_off_anywhere_keeps_a_champion_and_completes(
    client: MlflowClient, registry: Registry, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for calls in range(20):
        own = f"{line}-{calls}"
        add_versions(client, registry, own, 2)
        in_service(client, own, champion=2, previous=1)
        try:
            with killed_after(calls, monkeypatch):
                registry.rollback(own, "escapes", "bert")
            break
        except Killed:
            assert registry.champion(own).number in {1, 2}
        assert registry.rollback(own, "escapes", "bert").number == 1
        assert trail(registry, own) == [(("champion",), []), ((), ["rolled back"])], f"cut off after {calls} calls"
    assert calls >= 5, "the test no longer cuts anything off"


def test_half_done_promotion_is_finished_by_whoever_comes_next(
    client: MlflowClient, registry: Registry, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(client, registry, line, 3)
    registry.promote(line, 1, YES, "anna")
    with pytest.raises(Killed), killed_after(3, monkeypatch):
        registry.promote(line, 2, YES, "anna")
    registry.promote(line, 3, YES, "anna")
    assert [v.aliases for v in registry.history(line)] == [(), ("previous",), ("champion",)]
    assert registry.version(line, 2).decisions[0]["replaced"] == 1
