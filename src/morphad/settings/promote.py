"""Section `promote`: what the gate asks of a challenger."""

from typing import Annotated, Literal

from pydantic import Field

from morphad.settings.base import Fraction, Settings


class PromoteSettings(Settings):
    """The gate: limits for every challenger, and by how much it may seem worse than the champion."""

    mode: Literal["automatic", "four-eyes"] = Field(
        default="automatic",
        description="automatic: what passes the gate serves; four-eyes: it waits for `morphad approve`",
    )
    auroc_margin: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.02, description="non-inferiority margin")
    overkill_margin: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.05, description="non-inferiority margin")
    escape_margin: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="non-inferiority margin; by kind of defect, by how much more may seem to be missed"
    )
    min_auroc: Annotated[float, Field(ge=0, le=1)] = Field(default=0.7, description="floor")
    max_overkill: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="ceiling of the share of good holdout images that are rejected"
    )
    max_escape: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.8, description="ceiling of the share of defects that are missed; each line sets its own"
    )
    confidence: Fraction = Field(default=0.95, description="one-sided, of each bound")
    bootstrap: int = Field(default=2000, ge=100, le=100_000)
