"""params.yaml: its sections as frozen, checked settings, a file a section; how it is read; what is wrong with it."""

from morphad.settings.base import LINE_NAME, Fraction, Settings
from morphad.settings.calibrate import CalibrateSettings
from morphad.settings.evaluate import CostSettings, EvaluateSettings
from morphad.settings.ingest import (
    METADATA_FIELDS,
    Decoding,
    IngestSettings,
    Megapixels,
    MetadataField,
    MetadataSettings,
    WhiteLevel,
)
from morphad.settings.project import DataSettings, LineSettings, ProjectSettings
from morphad.settings.promote import PromoteSettings
from morphad.settings.region import RegionSettings
from morphad.settings.register import RegisterSettings
from morphad.settings.split import SplitSettings
from morphad.settings.train import (
    CaseSettings,
    MarginSettings,
    OptimiserSettings,
    Pixels,
    ResolutionSettings,
    ScoreSettings,
    TrainSettings,
)
from morphad.settings.validate import Range, RoleMinimums, Share, ValidateSettings

__all__ = [
    "LINE_NAME",
    "METADATA_FIELDS",
    "CalibrateSettings",
    "CaseSettings",
    "CostSettings",
    "DataSettings",
    "Decoding",
    "EvaluateSettings",
    "Fraction",
    "IngestSettings",
    "LineSettings",
    "MarginSettings",
    "Megapixels",
    "MetadataField",
    "MetadataSettings",
    "OptimiserSettings",
    "Pixels",
    "ProjectSettings",
    "PromoteSettings",
    "Range",
    "RegionSettings",
    "RegisterSettings",
    "ResolutionSettings",
    "RoleMinimums",
    "ScoreSettings",
    "Settings",
    "Share",
    "SplitSettings",
    "TrainSettings",
    "ValidateSettings",
    "WhiteLevel",
]
