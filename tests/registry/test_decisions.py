"""Champion, previous, candidate and the audit trail, also when cut off at any call, moved by hand or tampered with."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from exhaustive import sample
from morphad.base.errors import BadInputError, CheckFailedError, MorphadError, ServiceError
from morphad.registry import Actor, OvertakenError, Registry, repairs
from morphad.settings import RegisterSettings

YES: dict[str, Any] = {"promote": True, "reasons": ["not inferior"], "figures": {"auroc_difference": [0.0, 0.1]}}
NO: dict[str, Any] = {"promote": False, "reasons": ["AUROC may be 0.1 lower"], "figures": {}}

CHANGES = (
    "create_experiment",
    "create_run",
    "log_param",
    "log_text",
    "rename_experiment",
    "set_experiment_tag",
    "set_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_terminated",
)

AddVersions = Callable[..., None]


class Killed(BaseException):
    """Stands for the end of the process: nothing in the registry handles it."""


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


def cuts(settings: RegisterSettings) -> list[int]:
    """After how many calls to cut off, the last number being more than there are; fewer on a server, which is slow."""
    return sample(range(22), 8 if settings.tracking_uri.startswith("sqlite") else 4)


def acts(registry: Registry, line: str) -> list[tuple[str, int | None, int | None]]:
    return [(entry.action, entry.version, entry.champion) for entry in registry.trail(line).entries]


def aliases(client: MlflowClient, line: str) -> dict[str, int]:
    return {name: int(number) for name, number in client.get_registered_model(f"morphad-{line}").aliases.items()}


def test_promotion_moves_the_old_champion_to_previous(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    assert registry.champion(line).number == 1
    client.set_registered_model_alias(f"morphad-{line}", "challenger", "2")
    assert registry.promote(line, 2, YES, "schedule").aliases == ("champion",)
    assert aliases(client, line) == {"champion": 2, "previous": 1}
    entry = registry.trail(line).head
    assert (entry.by.name, entry.reasons, entry.replaced, entry.champion) == ("schedule", ("not inferior",), 1, 2)
    assert entry.before == registry.trail(line).entries[0].sha256


def test_a_decision_is_kept_with_all_its_figures(registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(1)
    registry.promote(line, 1, YES, "anna")
    assert registry.document(line, registry.trail(line).head) == {**YES, "guarantee": ""}


def test_long_reasons_are_kept_whole(registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(1)
    reasons = [f"Kind {number}: größer als erlaubt. " + "x" * 300 for number in range(60)]
    registry.promote(line, 1, {"reasons": reasons}, "anna")
    assert list(registry.trail(line).head.reasons) == reasons


def test_promoting_the_champion_again_changes_nothing(registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    before = registry.trail(line)
    registry.promote(line, 2, YES, "anna")
    assert registry.trail(line) == before


def test_refusal_is_recorded_once_and_aliases_stay(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    client.set_registered_model_alias(f"morphad-{line}", "challenger", "2")
    registry.refuse(line, 2, NO)
    registry.refuse(line, 2, NO)
    assert acts(registry, line) == [("promoted", 1, 1), ("refused", 2, 1)]
    assert aliases(client, line) == {"champion": 1, "challenger": 2}
    registry.refuse(line, 2, {**NO, "reasons": ["still worse"]})
    assert [entry.reasons[0] for entry in registry.trail(line).of_version(2)] == [NO["reasons"][0], "still worse"]


def test_rollback_by_steps(client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(4)
    for number in (1, 2, 3):
        registry.promote(line, number, YES, "anna")
    assert registry.rollback(line, "escapes in lot 7", "bert").number == 2
    assert aliases(client, line) == {"champion": 2, "previous": 1}
    assert registry.trail(line).head.reasons == ("escapes in lot 7",)
    with pytest.raises(CheckFailedError, match=r"rolled back to version 2 at .*--to VERSION, one of 1, 3"):
        registry.rollback(line, "again", "bert")
    assert registry.rollback(line, "lot 8 as well", "bert", to=1).number == 1
    assert aliases(client, line) == {"champion": 1}
    with pytest.raises(BadInputError, match="version 4 was never in service; versions that can be named: 2, 3"):
        registry.rollback(line, "why not", "bert", to=4)
    assert registry.rollback(line, "it was the light", "bert", to=3).number == 3


def test_rollback_with_nothing_before(registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(1)
    with pytest.raises(CheckFailedError, match="nothing to roll back"):
        registry.rollback(line, "why not", "bert")
    registry.promote(line, 1, YES, "anna")
    with pytest.raises(
        CheckFailedError, match=r"no previous champion to go back to; version 1 stays .* morphad withdraw"
    ):
        registry.rollback(line, "why", "bert")
    with pytest.raises(CheckFailedError, match="version 1 is champion already"):
        registry.rollback(line, "why", "bert", to=1)
    assert registry.champion(line).number == 1


def test_a_line_is_taken_out_of_service_and_brought_back(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    assert registry.withdraw(line, "camera moved", "bert") == 1
    assert registry.champion(line) is None
    assert aliases(client, line) == {}
    with pytest.raises(CheckFailedError, match=r"no version of .* is in service"):
        registry.withdraw(line, "again", "bert")
    with pytest.raises(CheckFailedError, match=r"bert.* took version 1 out of service at .* \(camera moved\)"):
        registry.promote(line, 1, YES, "anna")
    assert registry.rollback(line, "camera is back", "bert", to=1).number == 1
    assert registry.standing(line).blocked == {}


def test_a_detector_that_was_rolled_back_does_not_return_under_another_number(
    registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(1, detector="a")
    add_versions(1, detector="b")
    add_versions(1, detector="b")
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    registry.rollback(line, "escapes", "bert")
    with pytest.raises(CheckFailedError, match="version 2, the same detector as version 3, out of service"):
        registry.promote(line, 3, YES, "anna")
    for number in range(4, 7):  # whatever came after it
        add_versions(1, detector=str(number))
        registry.promote(line, number, YES, "anna")
    with pytest.raises(CheckFailedError, match="out of service"):
        registry.promote(line, 3, YES, "anna")


def test_four_eyes(client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(1)
    add_versions(2, by="anna")
    registry.promote(line, 1, YES, "dora")
    registry.propose(line, 2, YES, "schedule")
    registry.propose(line, 2, YES, "schedule")
    assert acts(registry, line)[1:] == [("proposed", 2, 1)]
    assert aliases(client, line) == {"champion": 1, "candidate": 2}
    for act in (registry.approve, registry.decline):
        with pytest.raises(CheckFailedError, match="version 2 awaits approval, not version 3; review that one"):
            act(line, "seen", "bert", version=3)
    with pytest.raises(CheckFailedError, match=r"trained by anna.*another account"):
        registry.approve(line, "looks fine", "anna")
    assert registry.approve(line, "looked at 40 parts", "bert", version=2).number == 2
    assert aliases(client, line) == {"champion": 2, "previous": 1}
    assert registry.trail(line).head.reasons == ("looked at 40 parts", "not inferior")
    with pytest.raises(CheckFailedError, match="no version awaits approval"):
        registry.approve(line, "once more", "bert")
    registry.propose(line, 3, YES, "schedule")
    assert registry.decline(line, "heatmaps are odd", "bert") == 3
    assert aliases(client, line) == {"champion": 2, "previous": 1}


def test_a_candidate_is_approved_only_against_the_champion_that_it_was_judged_against(
    registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(3, by="anna")
    registry.promote(line, 1, YES, "dora")
    judged = registry.standing(line)
    registry.promote(line, 2, YES, "dora")
    with pytest.raises(OvertakenError, match=r"judged against version 1, .*dora.* promoted version 2"):
        registry.propose(line, 3, YES, "schedule", judged)
    registry.propose(line, 3, YES, "schedule")
    registry.rollback(line, "escapes", "bert")
    with pytest.raises(CheckFailedError, match="no version awaits approval"):
        registry.approve(line, "fine", "bert")


def test_version_that_is_not_there(registry: Registry, line: str, add_versions: AddVersions) -> None:
    add_versions(2)
    for call in (registry.promote, registry.refuse, registry.propose):
        with pytest.raises(BadInputError, match=f"no version 7 of morphad-{line}; versions registered: 1, 2"):
            call(line, 7, YES, "anna")
    # A server with accounts does not tell a model that is not there from one that may not be seen.
    with pytest.raises(MorphadError, match=r"versions registered: none|error code 403"):
        registry.version("unheard-of", 1)
    assert registry.trail(line).entries == ()


@pytest.mark.parametrize("action", ["promote", "rollback", "withdraw", "propose", "approve"])
def test_cut_off_anywhere_there_is_a_champion_and_the_next_command_completes(  # noqa: PLR0917
    action: str,
    settings: RegisterSettings,
    client: MlflowClient,
    registry: Registry,
    line: str,
    add_versions: AddVersions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: dict[str, Callable[[str], object]] = {
        "promote": lambda own: registry.promote(own, 3, YES, "anna"),
        "rollback": lambda own: registry.rollback(own, "escapes", "bert"),
        "withdraw": lambda own: registry.withdraw(own, "camera", "bert"),
        "propose": lambda own: registry.propose(own, 3, YES, "anna"),
        "approve": lambda own: registry.approve(own, "fine", "bert"),
    }
    after = {
        "promote": {"champion": 3, "previous": 2},
        "rollback": {"champion": 1},
        "withdraw": {"previous": 1},
        "propose": {"champion": 2, "previous": 1, "candidate": 3},
        "approve": {"champion": 3, "previous": 2},
    }[action]
    for cut in cuts(settings):
        own = f"{line}-{cut}"
        add_versions(3, line=own)
        registry.promote(own, 1, YES, "anna")
        registry.promote(own, 2, YES, "anna")
        if action == "approve":
            registry.propose(own, 3, YES, "anna")
        before = acts(registry, own)
        try:
            with killed_after(cut, monkeypatch):
                calls[action](own)
            break
        except Killed:
            champion = registry.champion(own)  # readers are not held up
            assert (None if champion is None else champion.number) in {2, after.get("champion")}
        if acts(registry, own) == before:
            calls[action](own)
        else:
            registry.standing(own)  # whoever comes next
        assert aliases(client, own) == after, f"cut off after {cut} calls"
        assert len(acts(registry, own)) == len(before) + 1
        assert registry.trail(own).unfinished is None
    assert cut >= 3, "the test no longer cuts anything off"


def test_the_first_decision_cut_off_anywhere_makes_one_trail(
    settings: RegisterSettings,
    registry: Registry,
    line: str,
    add_versions: AddVersions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cut in cuts(settings):
        own = f"{line}-{cut}"
        add_versions(1, line=own)
        try:
            with killed_after(cut, monkeypatch):
                registry.promote(own, 1, YES, "anna")
            break
        except Killed:
            registry.promote(own, 1, YES, "anna")
        assert acts(registry, own) == [("promoted", 1, 1)], f"cut off after {cut} calls"
        assert registry.champion(own).number == 1
    assert cut >= 8, "the test no longer cuts anything off"


def test_half_done_change_is_finished_by_whoever_comes_next(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(3)
    registry.promote(line, 1, YES, "anna")
    with pytest.raises(Killed), killed_after(2, monkeypatch):
        registry.promote(line, 2, YES, "anna")
    assert registry.champion(line).number == 2, "decided, though the alias has not moved"
    registry.promote(line, 3, YES, "bert")
    assert aliases(client, line) == {"champion": 3, "previous": 2}
    assert [entry.replaced for entry in registry.trail(line).entries] == [None, 1, 2]


Mutilation = Callable[[MlflowClient, str], None]


def _move_champion(client: MlflowClient, name: str) -> None:
    client.set_registered_model_alias(name, "champion", "3")


def _delete_champion(client: MlflowClient, name: str) -> None:
    client.delete_model_version(name, "2")


def _drop_alias(client: MlflowClient, name: str) -> None:
    client.delete_registered_model_alias(name, "champion")


@pytest.mark.parametrize(
    ("mutilate", "told"),
    [
        (_move_champion, "by its records version 2 is champion, but MLflow's alias names version 3"),
        (_delete_champion, "by its records version 2 is champion, but MLflow no longer has that version"),
        (_drop_alias, "by its records version 2 is champion, but MLflow's alias names no version"),
    ],
)
def test_what_was_done_by_hand_stops_every_decision_until_it_is_repaired(  # noqa: PLR0917
    mutilate: Mutilation, told: str, client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(3)
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    registry.refuse(line, 3, NO)
    mutilate(client, f"morphad-{line}")
    before = acts(registry, line)
    for call in (
        lambda: registry.champion(line),
        lambda: registry.promote(line, 3, YES, "anna"),
        lambda: registry.refuse(line, 3, NO),
        lambda: registry.rollback(line, "why", "bert"),
        lambda: registry.withdraw(line, "why", "bert"),
        lambda: registry.standing(line),
    ):
        with pytest.raises(CheckFailedError, match=f"{told}.*morphad registry repair {line}"):
            call()
    assert acts(registry, line) == before
    planned = registry.plan_repair(line)
    assert planned.differences == (told,) or told in planned.differences
    assert acts(registry, line) == before, "a plan changes nothing"
    registry.repair(line, "put right", "bert")
    entry = registry.trail(line).head
    assert (entry.action, entry.by.name, entry.reasons[0]) == ("repaired", "bert", "put right")
    champion = registry.champion(line)
    assert (None if champion is None else champion.number) == (None if mutilate is _delete_champion else 2)
    with pytest.raises(BadInputError, match="nothing to repair"):
        registry.repair(line, "again", "bert")


def test_a_move_by_hand_can_be_accepted_on_record(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    client.set_registered_model_alias(f"morphad-{line}", "champion", "2")
    registry.repair(line, "MLflow's page was used at night", "bert", accept=True)
    assert registry.champion(line).number == 2
    assert acts(registry, line)[-1] == ("repaired", 2, 2)
    assert registry.rollback(line, "was wrong", "bert").number == 1


def test_a_line_whose_champion_is_gone_goes_back_by_name(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(3)
    for number in (1, 2, 3):
        registry.promote(line, number, YES, "anna")
    client.delete_model_version(f"morphad-{line}", "3")
    with pytest.raises(BadInputError, match="versions that can be named: 1, 2"):
        registry.plan_repair(line, to=3)
    registry.repair(line, "deleted by mistake", "bert", to=1)
    assert registry.champion(line).number == 1


def test_a_registry_from_before_there_were_records_is_adopted(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(3)
    client.set_registered_model_alias(f"morphad-{line}", "previous", "1")
    client.set_registered_model_alias(f"morphad-{line}", "champion", "2")
    with pytest.raises(CheckFailedError, match="names version 2, but no decision about the line is on record"):
        registry.champion(line)
    registry.repair(line, "from before", "bert")
    assert registry.champion(line).number == 2
    assert registry.rollback(line, "escapes", "bert").number == 1


def test_an_adoption_cut_off_anywhere_never_puts_the_earlier_version_in_service(
    client: MlflowClient,
    registry: Registry,
    settings: RegisterSettings,
    add_versions: AddVersions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cut in cuts(settings):
        line = f"adopted-{cut}"
        add_versions(2, line=line)
        client.set_registered_model_alias(f"morphad-{line}", "previous", "1")
        client.set_registered_model_alias(f"morphad-{line}", "champion", "2")
        try:
            with killed_after(cut, monkeypatch):
                registry.repair(line, "from before", "bert")
        except Killed:
            with suppress(CheckFailedError):
                registry.standing(line)
            assert aliases(client, line)["champion"] == 2
            continue
        break
    assert aliases(client, line) == {"champion": 2, "previous": 1}
    assert acts(registry, line) == [("adopted", 2, 2)]
    assert registry.rollback(line, "escapes", "bert").number == 1


def test_an_earlier_version_without_a_champion_is_not_put_in_service_by_the_records(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(1)
    client.set_registered_model_alias(f"morphad-{line}", "previous", "1")
    assert registry.repair(line, "from before", "bert").champion is None
    assert registry.champion(line) is None
    assert aliases(client, line) == {"previous": 1}
    assert registry.rollback(line, "there is nothing better", "bert").number == 1


def test_two_who_adopt_at_once_make_one_record(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(3)
    client.set_registered_model_alias(f"morphad-{line}", "champion", "2")
    original = repairs.plan_repair

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        planned = original(*args, **kwargs)
        with monkeypatch.context() as patched:
            patched.setattr(repairs, "plan_repair", original)
            registry.repair(line, "from before", "anna")
            registry.promote(line, 3, YES, "anna")
        return planned

    with monkeypatch.context() as patched:
        patched.setattr(repairs, "plan_repair", overtaken)
        with pytest.raises(OvertakenError, match="anna"):
            registry.repair(line, "from before", "bert")
    assert acts(registry, line) == [("adopted", 2, 2), ("promoted", 3, 3)]


def test_a_change_under_way_is_no_difference_that_a_repair_may_undo(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    with suppress(Killed), killed_after(1, monkeypatch):
        registry.promote(line, 2, YES, "anna")
    assert aliases(client, line)["champion"] == 1, "the decision is on record, and the aliases do not follow it yet"
    assert registry.plan_repair(line, accept=True).differences == ()
    assert registry.champion(line).number == 2
    with pytest.raises(BadInputError, match="nothing to repair"):
        registry.repair(line, "alias looked odd", "bert", accept=True)


def test_what_cannot_be_loaded_is_not_approved_and_not_chosen(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(3)
    registry.promote(line, 1, YES, "anna")
    registry.promote(line, 2, YES, "anna")
    registry.propose(line, 3, YES, "anna")

    def damaged(version: Any) -> None:
        raise ServiceError(f"version {version.number} is damaged")

    monkeypatch.setattr(registry, "check", damaged)
    with pytest.raises(ServiceError, match="version 3 is damaged"):
        registry.approve(line, "fine", "bert")
    client.set_registered_model_alias(f"morphad-{line}", "champion", "1")
    for choice in ({"accept": True}, {"to": 1}):
        with pytest.raises(ServiceError, match="version 1 is damaged"):
            registry.repair(line, "moved", "bert", **choice)
    registry.repair(line, "moved", "bert")  # what is on record stays in service, whatever it is
    assert acts(registry, line)[-1] == ("repaired", 2, 2)


@pytest.mark.parametrize("name", ["Anna", " anna ", "\uff41nna"])
def test_four_eyes_are_not_two_spellings_of_a_name(
    registry: Registry, line: str, add_versions: AddVersions, name: str
) -> None:
    add_versions(1, by="anna")
    registry.propose(line, 1, YES, "schedule")
    with pytest.raises(CheckFailedError, match="trained by anna"):
        registry.approve(line, "fine", name)


def test_an_account_is_not_somebody_else_than_the_same_name_without_one() -> None:
    assert not Actor("bert", "anna").differs_from(Actor("anna"))
    assert not Actor("anna").differs_from(Actor("x", "Anna"))
    assert Actor("anna", "bert").differs_from(Actor("anna", "anna"))
    assert not Actor("bert", "anna").differs_from(Actor("anna", "anna"))


@pytest.mark.parametrize("number", [-1, 0, 2**31, 10**30])
def test_a_number_that_no_version_can_have_is_told(
    registry: Registry, line: str, add_versions: AddVersions, number: int
) -> None:
    add_versions(1)
    registry.promote(line, 1, YES, "anna")
    for call in (registry.version, lambda line, number: registry.rollback(line, "why", "bert", to=number)):
        with pytest.raises(BadInputError, match=f"version {number}"):
            call(line, number)


def test_a_deleted_trail_is_noticed(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    experiment = client.get_experiment_by_name(f"morphad-trail-{line}")
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(CheckFailedError, match=f"mlflow experiments restore -x {experiment.experiment_id}"):
        registry.promote(line, 2, YES, "anna")
    client.restore_experiment(experiment.experiment_id)
    run_id = registry.trail(line).run_id
    client.delete_run(run_id)
    with pytest.raises(CheckFailedError, match=f"mlflow runs restore --run-id {run_id}"):
        registry.champion(line)
    client.restore_run(run_id)
    registry.promote(line, 2, YES, "anna")


def test_a_trail_that_was_changed_in_the_database_is_noticed(
    sql: Callable[..., None], client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    add_versions(2)
    registry.promote(line, 1, YES, "anna")
    registry.refuse(line, 2, NO)
    registry.promote(line, 2, YES, "anna")
    run_id = registry.trail(line).run_id
    kept = client.get_run(run_id).data.params

    def write(key: str, value: str) -> None:
        sql("UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", value, run_id, key)

    write("000002", kept["000002"].replace("AUROC may be 0.1 lower", "AUROC is higher"))
    with pytest.raises(CheckFailedError, match="decision 3 of its audit trail does not follow"):
        registry.champion(line)
    write("000002", kept["000002"])
    assert registry.champion(line).number == 2
    sql("DELETE FROM params WHERE run_uuid = ? AND key LIKE '000003%'", run_id)
    with pytest.raises(MorphadError, match=r"cut off or replaced|by its records version 1 is champion"):
        registry.champion(line)
    with pytest.raises(MorphadError, match="knows of 3 decisions, but they are not in the audit trail, which has 2"):
        registry.promote(line, 2, YES, "anna")


def test_mlflow_itself_refuses_a_second_entry_of_one_number(
    client: MlflowClient, registry: Registry, line: str, add_versions: AddVersions
) -> None:
    """What the order of decisions rests on."""
    add_versions(1)
    registry.promote(line, 1, YES, "anna")
    from mlflow.exceptions import MlflowException

    run_id = registry.trail(line).run_id
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_param(run_id, "000001", json.dumps({"action": "promoted"}))
