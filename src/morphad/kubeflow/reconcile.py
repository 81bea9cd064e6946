"""Hold recurring runs to what the schedules say: a pure plan, and its application, which may be killed at any point.

A recurring run cannot be changed, so one that differs is made anew. A line's new one is made before its old one goes:
whenever the work is cut off, no line is without a schedule that had one, and the next application ends what was begun.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from morphad.base.errors import CheckFailedError
from morphad.base.files import sha256_json
from morphad.base.text import flattened, masked_settings
from morphad.kubeflow.client import Kubeflow
from morphad.kubeflow.records import RecurringRun, Trigger
from morphad.settings.explaining import SettingsError
from morphad.settings.line_json import line_from_json

_MARK = re.compile(r"^morphad schedule: (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A recurring run as the schedules want it.

    Args:
        owner: Who keeps it.
        schedule: The schedule's name.
        line: The product line.
        enabled: Whether it starts runs.
        trigger: When, and what.
    """

    owner: str
    schedule: str
    line: str
    enabled: bool
    trigger: Trigger

    @property
    def name(self) -> str:
        """Its name in Kubeflow, which names its runs too; the line first, because Kubeflow cuts it off for those."""
        return name_of(self.line, self.schedule)

    @property
    def hash(self) -> str:
        """Of all that cannot be changed without making it anew."""
        values = {**vars(self.trigger), "start": _text(self.trigger.start), "end": _text(self.trigger.end)}
        return sha256_json(values)[:16]

    @property
    def description(self) -> str:
        """For people, and the mark by which it is known again."""
        mark = {"owner": self.owner, "schedule": self.schedule, "line": self.line, "hash": self.hash}
        return (
            f"Retrains {self.line} by schedule {self.schedule}. Kept by `morphad schedule apply`: change "
            f"pipelines/schedules.yaml instead.\nmorphad schedule: {json.dumps(mark)}"
        )


@dataclass(frozen=True)
class Owned:
    """A recurring run in Kubeflow that carries the owner's mark."""

    schedule: str
    line: str
    hash: str
    run: RecurringRun


@dataclass(frozen=True)
class Change:
    """What is to be done about one schedule of one line.

    Args:
        kind: create, recreate (make anew), enable, disable, delete, or keep.
        wanted: What there is to be; None: nothing.
        old: The recurring runs that are to go or to be switched.
        why: The differences, for people.
    """

    kind: Literal["create", "recreate", "enable", "disable", "delete", "keep"]
    line: str
    schedule: str
    wanted: Wanted | None
    old: tuple[Owned, ...] = ()
    why: tuple[str, ...] = field(default=())


def name_of(line: str, schedule: str) -> str:
    """The name of the recurring run of a line by a schedule."""
    return f"{line}-{schedule}"


def owned(runs: Iterable[RecurringRun], owner: str) -> list[Owned]:
    """The recurring runs that the owner keeps: those with its mark and the name that belongs to the mark.

    A copy that somebody makes in Kubeflow's pages has the mark too, but another name, and is left alone.
    """
    found = []
    for run in runs:
        match = _MARK.search(run.description)
        try:
            mark = json.loads(match[1]) if match else {}
        except ValueError:
            continue
        if mark.get("owner") == owner and run.name == name_of(str(mark.get("line")), str(mark.get("schedule"))):
            found.append(Owned(mark["schedule"], mark["line"], str(mark.get("hash")), run))
    return found


def plan(wanted: Sequence[Wanted], actual: Sequence[Owned]) -> list[Change]:
    """What is to be done, line after line; nothing is lost on the way when it is done in this order."""
    keys = {(w.line, w.schedule) for w in wanted} | {(o.line, o.schedule) for o in actual}
    wants = {(w.line, w.schedule): w for w in wanted}
    changes = []
    for line, schedule in keys:
        have = [o for o in actual if (o.line, o.schedule) == (line, schedule)]
        changes += _changes(line, schedule, wants.get((line, schedule)), have)
    # In a line, first what it is to have enabled, then what is to start nothing any more.
    return sorted(changes, key=lambda c: (c.line, not (c.wanted and c.wanted.enabled), c.kind == "delete", c.schedule))


def _changes(line: str, schedule: str, wanted: Wanted | None, have: Sequence[Owned]) -> list[Change]:
    if wanted is None:
        return [Change("delete", line, schedule, None, tuple(have), ("no longer in the schedules",))]
    if not have:
        return [Change("create", line, schedule, wanted)]
    same = sorted(
        (o for o in have if o.hash == wanted.hash), key=lambda o: (not o.run.enabled, o.run.created, o.run.id)
    )
    others = tuple(o for o in have if o not in same[:1])
    if not same:
        newest = max(have, key=lambda o: o.run.created)
        return [Change("recreate", line, schedule, wanted, others, differences(newest.run.trigger, wanted.trigger))]
    kept = same[0]
    if wanted.enabled and not kept.run.enabled and not wanted.trigger.catch_up:
        # Enabled again it would at once make up for the last start that it missed.
        return [Change("recreate", line, schedule, wanted, tuple(have), ("it is disabled",))]
    changes = []
    if wanted.enabled != kept.run.enabled:
        kind: Literal["enable", "disable"] = "enable" if wanted.enabled else "disable"
        changes.append(Change(kind, line, schedule, wanted, (kept,)))
    elif not others:
        changes.append(Change("keep", line, schedule, wanted, (kept,)))
    if others:
        changes.append(Change("delete", line, schedule, wanted, others, ("replaced",)))
    return changes


def differences(have: Trigger, wanted: Trigger) -> tuple[str, ...]:
    """In what two triggers differ, `key: old -> new` each, down to single settings of lines, without credentials."""
    old, new = _flat(have), _flat(wanted)
    old_shown, new_shown = masked_settings(old), masked_settings(new)
    found = [
        f"{key}: {old_shown.get(key, 'none')} -> {new_shown.get(key, 'none')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    return tuple(found) or ("made by another version of morphad",)


def _flat(trigger: Trigger) -> dict[str, Any]:
    values: dict[str, Any] = {key: value for key, value in vars(trigger).items() if key != "parameters"}
    values |= {key: _text(values[key]) for key in ("start", "end")}
    for key, value in trigger.parameters.items():
        if key != "lines" or not isinstance(value, list):
            values[key] = value
            continue
        for item in value:
            values |= flattened({"settings": _settings(item.get("settings_json", ""))})
    return values


def _settings(text: str) -> Any:
    """A line's settings with all defaults; as they are written where another version of morphad wrote them."""
    try:
        return line_from_json(text).model_dump(mode="json", by_alias=True)
    except SettingsError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


class Reconciler:
    """Does what a plan says.

    Args:
        kubeflow: Where.
        owner: Whose recurring runs are looked at.
        say: Called with what happens.
    """

    def __init__(self, kubeflow: Kubeflow, owner: str, say: Callable[[str], object]) -> None:
        self.kubeflow = kubeflow
        self._owner = owner
        self._say = say
        self._unreadable: set[str] = set()

    def actual(self) -> list[Owned]:
        """The owner's recurring runs as they are now; of those that Kubeflow cannot read, only that they exist."""
        runs = list(self.kubeflow.recurring_runs())
        for run in runs:
            if run.error and run.id not in self._unreadable:  # told once
                self._unreadable.add(run.id)
                self._say(f"Kubeflow cannot read recurring run {run.id} ({run.error}): if it is yours, delete it there")
        return owned(runs, self._owner)

    def apply(self, wanted: Sequence[Wanted], now: datetime) -> None:
        """Bring Kubeflow to what is wanted.

        Raises:
            CheckFailedError: Another application, with other schedules, is at work.
            ServiceError: Kubeflow failed on the way; applied again, the work goes on.
        """
        for change in plan(wanted, self.actual()):
            self._do(change, now)
        # Two at once may both have made what was missing: of equal ones, the first stays whoever looks.
        left = plan(wanted, self.actual())
        for change in left:
            if change.kind == "delete" and change.wanted is not None:
                equal = tuple(o for o in change.old if o.hash == change.wanted.hash)
                self._do(replace(change, old=equal), now)
        strange = [c for c in left if c.kind != "keep" and not self._only_waits(c)]
        if strange:
            raise CheckFailedError(
                f"{', '.join(name_of(c.line, c.schedule) for c in strange)}: changed by others meanwhile; if another "
                "`schedule apply` is at work, let it end, agree on the schedules, and apply them again"
            )

    def _only_waits(self, change: Change) -> bool:
        """Whether all that is left to do is to delete what starts nothing any more, or is gone by now."""
        if change.kind != "delete":
            return False
        return all(
            not o.run.enabled or (change.wanted is not None and o.hash == change.wanted.hash) for o in change.old
        )

    def _do(self, change: Change, now: datetime) -> None:
        name = name_of(change.line, change.schedule)
        if change.kind in {"create", "recreate"} and change.wanted is not None:
            self._create(change.wanted, now)
            self._say(f"{name}: made")
        if change.kind == "enable":
            self.kubeflow.enable_recurring_run(change.old[0].run.id)
            self._say(f"{name}: enabled")
        if change.kind == "disable":
            self.kubeflow.disable_recurring_run(change.old[0].run.id)
            self._say(f"{name}: disabled")
        if change.kind in {"recreate", "delete"}:
            for old in change.old:
                self._retire(old, name)

    def _create(self, wanted: Wanted, now: datetime) -> None:
        trigger = wanted.trigger
        if trigger.start is not None and trigger.start <= now:
            # From a start that has gone by, Kubeflow would at once make up for what was missed since.
            trigger = replace(trigger, start=None)
        self.kubeflow.create_recurring_run(wanted.name, wanted.description, trigger, wanted.enabled)

    def _retire(self, old: Owned, name: str) -> None:
        """Stop a recurring run, and delete it unless a run of it is under way, which might be ended with it."""
        if old.run.enabled:
            self.kubeflow.disable_recurring_run(old.run.id)
        busy = under_way(self.kubeflow, old)
        if busy:
            self._say(f"{name}: {old.run.id} is disabled; apply deletes it once run {', '.join(busy)} has ended")
            return
        self.kubeflow.delete_recurring_run(old.run.id)
        self._say(f"{name}: {old.run.id} deleted")


def under_way(kubeflow: Kubeflow, old: Owned) -> list[str]:
    """The runs under way that a recurring run started."""
    runs = kubeflow.runs_under_way(old.run.trigger.experiment_id)
    return [run.id for run in runs if run.recurring_run_id == old.run.id]
