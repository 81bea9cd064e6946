"""The sections of a line, and what params.yaml holds as a whole."""

from pydantic import Field

from morphad.base.errors import BadInputError
from morphad.base.wording import did_you_mean
from morphad.settings.base import Settings
from morphad.settings.calibrate import CalibrateSettings
from morphad.settings.evaluate import EvaluateSettings
from morphad.settings.ingest import IngestSettings
from morphad.settings.promote import PromoteSettings
from morphad.settings.register import RegisterSettings
from morphad.settings.split import SplitSettings
from morphad.settings.train import TrainSettings
from morphad.settings.validate import ValidateSettings


class LineSettings(Settings):
    """All settings of one line, section by section."""

    ingest: IngestSettings
    validate_: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    split: SplitSettings = SplitSettings()
    train: TrainSettings = TrainSettings()
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    register_: RegisterSettings = Field(default=RegisterSettings(), alias="register")
    promote: PromoteSettings = PromoteSettings()


class DataSettings(Settings):
    """Where versions of the lines' data are kept; `morphad data` has options and variables for both, too."""

    registry: str | None = Field(
        default=None, min_length=1, description="git repository that records the versions: a URL or a path"
    )
    remote: str | None = Field(
        default=None, min_length=1, description="where a new registry keeps the bytes: s3://BUCKET/PREFIX or a folder"
    )


class ProjectSettings(Settings):
    """What params.yaml holds, resolved: the seed, where data versions are kept, and every line's settings."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataSettings = DataSettings()
    lines: dict[str, LineSettings]

    def line(self, name: str) -> LineSettings:
        """The settings of one line.

        Raises:
            BadInputError: params.yaml has no such line.
        """
        if name not in self.lines:
            meant = did_you_mean(name, self.lines) or f"the lines are: {', '.join(sorted(self.lines))}"
            raise BadInputError(f"no line {name!r} in the settings; {meant}")
        return self.lines[name]
