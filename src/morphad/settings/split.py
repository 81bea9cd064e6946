"""Section `split`: which share of the images has which role."""

from typing import Literal, Self

from pydantic import Field, model_validator

from morphad.settings.base import Fraction, Settings


class SplitSettings(Settings):
    """Shares of the good images by role; defect images all belong to the holdout."""

    calibration: Fraction = Field(default=0.25, description="share of the good images that calibrate the threshold")
    holdout: Fraction = Field(default=0.2, description="share of the good images that are frozen for evaluation")
    by: Literal["auto", "group", "lot", "shift", "camera", "day"] = Field(
        default="auto",
        description="images of one such session keep together; auto: of one lot, else shift, where known",
    )
    near_duplicate_bits: int = Field(
        default=6, ge=0, le=64, description="differing bits of 256 in a perceptual hash; 0: only equal bytes are copies"
    )
    renew_holdout: bool = Field(default=False, description="draw a new holdout; figures are not comparable after it")

    @model_validator(mode="after")
    def _some_remain_for_training(self) -> Self:
        if self.calibration + self.holdout >= 0.9:
            raise ValueError(
                f"`calibration` {self.calibration} + `holdout` {self.holdout} must be below 0.9: more than 0.1 of the "
                "good images is for training"
            )
        return self
