"""The plan: what is to be done, and that doing it in order leaves no line without a schedule."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad.kubeflow.reconcile import Owned, Wanted, differences, owned, plan
from morphad.kubeflow.records import RecurringRun, Trigger

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = '{"train":{"preset":"default","optimiser":{"steps":%d}}}'
TRIGGER = Trigger(
    cron="0 0 2 * * *",
    start=None,
    end=None,
    max_concurrency=1,
    catch_up=False,
    experiment_id="e",
    pipeline_id="p",
    version_id="v",
    parameters={"lines": [{"line": "pcb", "settings_json": SETTINGS % 100}], "seed": 0},
)


def wanted(line: str = "pcb", schedule: str = "nightly", enabled: bool = True, **changes: object) -> Wanted:
    return Wanted("plant", schedule, line, enabled, replace(TRIGGER, **changes))


def there(w: Wanted, number: int = 0, enabled: bool | None = None) -> Owned:
    """What is in Kubeflow once `w` was made."""
    run = RecurringRun(
        id=f"id-{number}",
        name=w.name,
        description=w.description,
        created=EPOCH + timedelta(minutes=number),
        enabled=w.enabled if enabled is None else enabled,
        trigger=w.trigger,
    )
    (found,) = owned([run], w.owner)
    return found


def kinds(*arguments: list[Wanted] | list[Owned]) -> list[str]:
    return [change.kind for change in plan(*arguments)]  # type: ignore[arg-type]


def test_what_is_missing_is_made_and_what_is_there_is_kept() -> None:
    assert kinds([wanted()], []) == ["create"]
    assert kinds([wanted()], [there(wanted())]) == ["keep"]
    assert kinds([], [there(wanted())]) == ["delete"]
    assert kinds([], []) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cron": "0 0 3 * * *"}, "cron: 0 0 2 * * * -> 0 0 3 * * *"),
        ({"max_concurrency": 2}, "max_concurrency: 1 -> 2"),
        ({"catch_up": True}, "catch_up: False -> True"),
        ({"version_id": "w"}, "version_id: v -> w"),
        ({"start": EPOCH}, "start: None -> 2026-01-01T00:00:00+00:00"),
        ({"parameters": {**TRIGGER.parameters, "seed": 7}}, "seed: 0 -> 7"),
        (
            {"parameters": {"lines": [{"line": "pcb", "settings_json": SETTINGS % 200}], "seed": 0}},
            "settings.train.optimiser.steps: 100 -> 200",
        ),
    ],
)
def test_what_differs_is_made_anew_and_the_difference_is_told(change: dict[str, object], why: str) -> None:
    (found,) = plan([wanted(**change)], [there(wanted())])
    assert found.kind == "recreate"
    assert found.why == (why,)
    assert [old.run.id for old in found.old] == ["id-0"]


def test_a_difference_shows_no_secret() -> None:
    """Such as that of a recurring run which an earlier version of morphad made."""
    text = '{"register":{"tracking_uri":"http://anna:hu/sh@%s"},"api_key":"hush-%s"}'
    have, want = (
        replace(TRIGGER, parameters={"lines": [{"line": "pcb", "settings_json": text % (host, host)}]})
        for host in ("old", "new")
    )
    assert differences(have, want) == (
        "settings.api_key: *** -> ***",
        "settings.register.tracking_uri: http://***@old -> http://***@new",
    )


def test_numbers_may_come_back_from_the_server_as_fractions() -> None:
    back = replace(TRIGGER, parameters={**TRIGGER.parameters, "seed": 0.0})
    assert differences(back, TRIGGER) == ("made by another version of morphad",)


def test_disabling_switches_and_enabling_makes_anew_so_that_nothing_is_made_up_for() -> None:
    assert kinds([wanted(enabled=False)], [there(wanted())]) == ["disable"]
    assert kinds([wanted()], [there(wanted(), enabled=False)]) == ["recreate"]
    assert kinds([wanted(catch_up=True)], [there(wanted(catch_up=True), enabled=False)]) == ["enable"]


def test_of_equal_ones_the_first_stays() -> None:
    (change,) = plan([wanted()], [there(wanted(), 2), there(wanted(), 1), there(wanted(), 0, enabled=False)])
    assert change.kind == "delete"
    assert {old.run.id for old in change.old} == {"id-2", "id-0"}


def test_a_renamed_schedule_is_made_before_the_old_one_goes() -> None:
    changes = plan([wanted(schedule="daily"), wanted("wood")], [there(wanted()), there(wanted("wood"))])
    assert [(change.line, change.kind) for change in changes] == [
        ("pcb", "create"),
        ("pcb", "delete"),
        ("wood", "keep"),
    ]


def test_only_marked_ones_of_the_owner_with_their_own_name_are_its() -> None:
    mine = there(wanted()).run
    others = [
        replace(mine, description="mine, I say"),
        replace(mine, description=mine.description.replace('"owner": "plant"', '"owner": "lab"')),
        replace(mine, name="Clone of pcb-nightly"),
        replace(mine, description="morphad schedule: {broken}"),
        replace(mine, description="morphad schedule: {}"),
        replace(mine, description=""),
    ]
    assert [o.run for o in owned([*others, mine], "plant")] == [mine]


TRIGGERS = st.builds(
    lambda cron, catch_up: replace(TRIGGER, cron=cron, catch_up=catch_up),
    st.sampled_from(["0 0 2 * * *", "0 0 3 * * *"]),
    st.booleans(),
)
RUNS = st.builds(
    Wanted,
    owner=st.just("plant"),
    schedule=st.sampled_from(["nightly", "weekly"]),
    line=st.sampled_from(["pcb", "wood"]),
    enabled=st.booleans(),
    trigger=TRIGGERS,
)


def active(state: dict[str, Owned], line: str) -> int:
    return sum(o.run.enabled for o in state.values() if o.line == line)


@settings(deadline=None)
@given(
    want=st.lists(RUNS, max_size=4, unique_by=lambda w: (w.line, w.schedule)),
    have=st.lists(st.tuples(RUNS, st.booleans()), max_size=6),
    cut=st.integers(0, 30),
)
def test_however_it_begins_and_wherever_it_is_cut_off_it_ends_right(
    want: list[Wanted], have: list[tuple[Wanted, bool]], cut: int
) -> None:
    one_a_line = {w.line: w for w in want if w.enabled}
    want = [w for w in want if not w.enabled or one_a_line[w.line] is w]
    state = {f"id-{i}": there(w, i, enabled) for i, (w, enabled) in enumerate(have)}
    before = {line: active(state, line) for line in ("pcb", "wood")}
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        for line in one_a_line:
            assert before[line] == 0 or active(state, line) > 0  # no line is without that had one
        return steps == cut

    def do_all() -> None:
        for change in plan(want, list(state.values())):
            if change.kind in {"create", "recreate"}:
                assert change.wanted is not None
                made = there(change.wanted, 100 + steps)
                state[made.run.id] = made
                if step():
                    return
            for old in change.old if change.kind not in {"create", "keep"} else ():
                if change.kind in {"recreate", "delete"}:
                    del state[old.run.id]
                else:
                    run = replace(old.run, enabled=change.kind == "enable")
                    state[old.run.id] = replace(old, run=run)
                if step():
                    return

    do_all()
    do_all()
    assert {change.kind for change in plan(want, list(state.values()))} <= {"keep"}
    assert len(state) == len(want)
    for line in ("pcb", "wood"):
        assert active(state, line) == (line in one_a_line)
