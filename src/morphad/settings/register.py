"""Section `register`: where runs and versions are recorded."""

from pydantic import Field

from morphad.settings.base import Settings


class RegisterSettings(Settings):
    """Where runs and versions are recorded; MLFLOW_TRACKING_URI in the environment wins."""

    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = Field(default="morphad", min_length=1)
    timeout_seconds: int = Field(default=30, ge=1, le=600)
    retries: int = Field(default=2, ge=0, le=10)
