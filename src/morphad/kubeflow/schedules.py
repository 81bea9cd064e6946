"""pipelines/schedules.yaml as frozen, checked settings: which lines retrain when."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from morphad.base.errors import BadInputError
from morphad.kubeflow.cron import Cron
from morphad.settings import LINE_NAME, ProjectSettings, Settings
from morphad.settings.explaining import SettingsError, explain
from morphad.settings.reading import read_yaml

COMPILED_VERSION = "compiled"

_ALL = ("all",)

Name = Annotated[str, Field(pattern=rf"^{LINE_NAME.pattern}$", description="a-z, 0-9 and inner hyphens")]


class ScheduleSettings(Settings):
    """When some lines retrain, and how."""

    lines: tuple[str, ...] = Field(min_length=1, strict=False, description="all, one line, or a list of lines")
    cron: str = Field(description="second minute hour day-of-month month day-of-week, such as '0 0 2 * * *'")
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="of the runs; none: that of the settings")
    max_concurrency: int = Field(default=1, ge=1, le=10, description="runs of a line at once")
    catch_up: bool = Field(default=False, description="make up for starts that were missed")
    enabled: bool = True
    start: AwareDatetime | None = Field(default=None, description="a time with its zone: 2027-01-01T00:00:00+01:00")
    end: AwareDatetime | None = Field(default=None, description="a time with its zone: 2027-12-31T00:00:00+01:00")
    experiment: str = Field(default="morphad", min_length=1, description="where the runs are listed in Kubeflow")

    @field_validator("lines", mode="before")
    @classmethod
    def _one_line_is_a_list(cls, lines: Any) -> Any:
        return (lines,) if isinstance(lines, str) else lines

    @field_validator("cron")
    @classmethod
    def _cron_is_kubeflows(cls, cron: str) -> str:
        return Cron(cron).text

    @model_validator(mode="after")
    def _start_is_before_end(self) -> Self:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"`end` {self.end.isoformat()} must be after `start` {self.start.isoformat()}")
        return self

    def next_start(self, now: datetime) -> datetime | None:
        """The first start after now, in the time zone of `now`; None: there is none."""
        begin = now if self.start is None else max(now, self.start.astimezone(now.tzinfo))
        found = Cron(self.cron).next(begin)
        return None if found is None or (self.end is not None and found > self.end) else found


class ScheduleFile(Settings):
    """What pipelines/schedules.yaml holds."""

    owner: Name
    time_zone: str = Field(default="UTC", description="in which Kubeflow reads cron, such as Europe/Berlin")
    pipeline_version: str = Field(
        default=COMPILED_VERSION, min_length=1, description="compiled, or the name of an uploaded version"
    )
    schedules: dict[Name, ScheduleSettings]

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; expected a name such as UTC or Europe/Berlin") from None
        return zone

    def lines_of(self, name: str, project: ProjectSettings) -> tuple[str, ...]:
        """The lines of a schedule."""
        lines = self.schedules[name].lines
        return tuple(project.lines) if lines == _ALL else lines


def load_schedules(path: Path, project: ProjectSettings) -> ScheduleFile:
    """Read and check the schedules.

    Raises:
        BadInputError: The file is missing or is not YAML, a key or value is wrong, a line is not in the settings, or a
            line is in two schedules; the message names file, key, value and what is allowed.
    """
    raw = read_yaml(path, "--schedules")
    try:
        file = _checked(raw)
        _check_lines(file, project)
    except SettingsError as error:
        raise BadInputError(f"{path}: {error}") from error
    return file


def _checked(raw: Any) -> ScheduleFile:
    if not isinstance(raw, dict):
        raise SettingsError("expected keys `owner` and `schedules`")
    entries = raw.get("schedules")
    if not isinstance(entries, dict):
        raise SettingsError(
            f"schedules = {entries!r}: expected schedules by name, such as "
            "`nightly: {lines: all, cron: '0 0 2 * * *'}`; {} for none"
        )
    schedules: dict[str, ScheduleSettings] = {}
    for name, entry in entries.items():
        if not isinstance(name, str) or not LINE_NAME.fullmatch(name):
            raise SettingsError(f"schedules.{name!r}: a schedule's name holds a-z, 0-9 and inner hyphens")
        if not isinstance(entry, dict):
            raise SettingsError(f"schedules.{name} = {entry!r}: expected keys such as `lines` and `cron`")
        try:
            schedules[name] = ScheduleSettings.model_validate(entry)
        except ValidationError as error:
            told = explain(error, ScheduleSettings)
            raise SettingsError(f"schedules.{name}{'' if told.startswith(':') else '.'}{told}") from error
    try:
        return ScheduleFile.model_validate({**raw, "schedules": schedules})
    except ValidationError as error:
        raise SettingsError(explain(error, ScheduleFile)) from error


def _check_lines(file: ScheduleFile, project: ProjectSettings) -> None:
    taken: dict[str, str] = {}
    for name, schedule in file.schedules.items():
        key = f"schedules.{name}.lines"
        lines = file.lines_of(name, project)
        for line in lines:
            if line not in project.lines:
                known = ", ".join(sorted(project.lines))
                raise SettingsError(f"{key}: {line!r} is no line of the settings; all, or some of: {known}")
            if lines.count(line) > 1:
                raise SettingsError(f"{key}: {line!r} is listed twice")
            if schedule.enabled and line in taken:
                raise SettingsError(
                    f"{key}: {line!r} is in schedule {taken[line]!r} too; a line has one enabled schedule, so that two "
                    "of its runs do not meet: put all times into one cron, such as '0 0 2,14 * * *'"
                )
            if schedule.enabled:
                taken[line] = name
