"""Cron expressions as Kubeflow reads them, and when they fire.

Kubeflow's controller parses them with github.com/robfig/cron v1.2: seconds first, no `L`, `W` or `#`, Sunday is 0 only,
ranges do not wrap around, and `*` in one day field means that the other alone decides. Python's parsers speak other
dialects, so this is that one, less what is a mistake in a schedule of trainings.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_YEARS_AHEAD = 5  # in which the controller looks for a time; when there is none it loops for ever


@dataclass(frozen=True)
class _Field:
    """One place of an expression: its name, its least and greatest value, and words for values."""

    name: str
    least: int
    greatest: int
    words: dict[str, int]


_FIELDS = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, {word: number for number, word in enumerate(_MONTHS, 1)}),
    _Field("day of week", 0, 6, {word: number for number, word in enumerate(_DAYS)}),
)
_ORDER = "second minute hour day-of-month month day-of-week"


class CronError(ValueError):
    """The expression is none that Kubeflow takes, or none that makes sense for a training."""


class Cron:
    """A cron expression of six fields.

    Args:
        text: second (one number), minute, hour, day of month, month (1-12 or jan-dec), day of week (0-6 or sun-sat);
            each of the last five is `*`, a number, a range `a-b`, a step `*/n` or `a-b/n`, or a list of those.

    Raises:
        CronError: A field is wrong, or there is no such time in the next years.
    """

    def __init__(self, text: str) -> None:
        words = text.split()
        if len(words) == 5 and not text.startswith("@"):
            raise CronError(f"has 5 fields; Kubeflow's cron begins with the second: perhaps '0 {' '.join(words)}'")
        if len(words) != len(_FIELDS):
            raise CronError(f"expected 6 fields ({_ORDER}), got {len(words)}, such as '0 0 2 * * *' for 02:00 each day")
        self.text = " ".join(words)
        values = [_values(word, field) for word, field in zip(words, _FIELDS, strict=True)]
        if len(values[0]) > 1:
            raise CronError(f"second {words[0]!r}: more than one start a minute; give one number, such as 0")
        (self._second,) = values[0]
        self._times = [time(hour, minute, self._second) for hour in sorted(values[2]) for minute in sorted(values[1])]
        self._days, self._months, self._weekdays = values[3], values[4], values[5]
        # As in the controller: with a star in either day field both must match, which the star always does.
        self._both = any(part[0] in "*?" for word in (words[3], words[5]) for part in word.split(","))
        if self.next(datetime(2024, 1, 1, tzinfo=UTC)) is None:
            raise CronError(f"there is no day {words[3]} in month {words[4]}: it would never start")

    def next(self, after: datetime) -> datetime | None:
        """The first time after the given one, in its time zone; None: none in the next five years.

        A time that clocks skip when summer time begins is skipped too.
        """
        wall = after.replace(tzinfo=None)
        for days in range(_YEARS_AHEAD * 366):
            day = wall.date() + timedelta(days=days)
            if not self._has(day):
                continue
            for moment in self._times:
                found = datetime.combine(day, moment)
                aware = found.replace(tzinfo=after.tzinfo)
                if found > wall and aware.astimezone(UTC).astimezone(after.tzinfo).replace(tzinfo=None) == found:
                    return aware
        return None

    def _has(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        of_month, of_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return (of_month and of_week) if self._both else (of_month or of_week)


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        low, hyphen, high = span.partition("-")
        if span in {"*", "?"}:
            first, last = field.least, field.greatest
        else:
            first = _number(low, field, part)
            last = _number(high, field, part) if hyphen else (field.greatest if slash else first)
        if first > last:
            raise CronError(f"{field.name} {part!r}: {first} comes after {last}; write two ranges with a comma")
        stride = 1
        if slash:
            if not (step.isascii() and step.isdigit() and int(step) > 0):
                raise CronError(f"{field.name} {part!r}: the step {step!r} is not a number above 0")
            stride = int(step)
        found.update(range(first, last + 1, stride))
    return frozenset(found)


def _number(text: str, field: _Field, part: str) -> int:
    value = field.words.get(text.lower(), int(text) if text.isascii() and text.isdigit() else None)
    if value is None or not field.least <= value <= field.greatest:
        words = f" or {', '.join(field.words)}" if field.words else ""
        raise CronError(f"{field.name} {part!r}: {text!r} is not in {field.least}-{field.greatest}{words}")
    return value
