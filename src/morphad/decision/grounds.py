"""What the guarantee of a threshold rests on, in numbers and in words: sessions, not images, are exchangeable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from morphad.base.errors import BadInputError
from morphad.base.wording import counted, exact_percent, percent
from morphad.decision.calibration import Calibration

FEW_SESSIONS = 3  # fewer are called few
CLEAR_SHIFT = 0.3  # Kolmogorov-Smirnov distance; smaller ones are reported, but are no reason to doubt

_PLURAL = {"group": "groups", "lot": "lots", "shift": "shifts", "camera": "cameras", "day": "days"}


@dataclass(frozen=True)
class RoleFacts:
    """What stands behind a role.

    Attributes:
        images: Good images.
        sessions: Sessions that they come from.
        unknown: Images whose session is not known.
        squares: Sum of the squares of the sessions' sizes.
    """

    images: int
    sessions: int
    unknown: int
    squares: float


@dataclass(frozen=True)
class RoleShift:
    """A statistic in which calibration images differ from training images.

    Attributes:
        statistic: Its name in the manifest.
        distance: Kolmogorov-Smirnov, 0 to 1.
        train: Median of the training images.
        calibration: Median of the calibration images.
    """

    statistic: str
    distance: float
    train: float
    calibration: float


@dataclass(frozen=True)
class Dependence:
    """What scores say about sessions.

    Attributes:
        within: How alike the scores of good images of one session are: the share of the variance of their ranks that
            lies between sessions of the holdout, 0 to 1; None where it is not known.
        distance: Kolmogorov-Smirnov distance of the good images' scores in calibration and holdout, 0 to 1.
    """

    within: float | None
    distance: float


@dataclass(frozen=True)
class Grounds:
    """What the guarantee of a threshold rests on.

    Attributes:
        by: What separates sessions: lot, shift, group, camera, day; "" where nothing does.
        roles: Of train, calibration and holdout.
        shared_sessions: Sessions of calibration images that training has, too.
        shared_images: Calibration images of these.
        shifts: The clearest first.
        dependence: None before the model is evaluated.
    """

    by: str
    roles: Mapping[str, RoleFacts]
    shared_sessions: int
    shared_images: int
    shifts: tuple[RoleShift, ...]
    dependence: Dependence | None = None

    @property
    def effective_images(self) -> int | None:
        """About how many independent images the calibration images count as (Kish's design effect); None: not known."""
        facts = self.roles["calibration"]
        if self.dependence is None or self.dependence.within is None or not facts.sessions:
            return None
        size = (facts.squares + facts.unknown) / facts.images
        return max(1, round(facts.images / (1 + (size - 1) * self.dependence.within)))

    def sentences(self) -> list[str]:
        """What a quality engineer should know, as facts."""
        if not self.by:
            return [
                "No lot, shift, group or day of the images is known: the guarantee assumes independent images. "
                "Images of one session are alike, and then it rests on fewer than it seems."
            ]
        said = [
            "Good images come from "
            + ", ".join(
                f"{counted(facts.sessions, self.by, _PLURAL[self.by])} ({counted(facts.images, 'image')}"
                + (f", {facts.unknown:,} of no known {self.by}" if facts.unknown else "")
                + f") for {'training' if role == 'train' else role}"
                for role, facts in self.roles.items()
            )
            + f". What is guaranteed holds for new {_PLURAL[self.by]} as far as they are like those of the calibration."
        ]
        if self.shared_sessions:
            said.append(
                f"{counted(self.shared_images, 'calibration image')} are of {_PLURAL[self.by]} that training has, too "
                f"({self.shared_sessions} of {self.roles['calibration'].sessions})."
            )
        dependence = self.dependence
        if dependence is not None and dependence.within is not None and self.effective_images is not None:
            images = counted(self.roles["calibration"].images, "calibration image")
            said.append(
                f"Of how scores of good images in the holdout differ, {percent(dependence.within)} lies between "
                f"{_PLURAL[self.by]}: the {images} count as about {self.effective_images:,} independent ones."
            )
        said += [
            f"Calibration images differ from training images in {shift.statistic}: median {shift.calibration:.4g} "
            f"instead of {shift.train:.4g} (Kolmogorov-Smirnov distance {shift.distance:.2f})."
            for shift in self.shifts[:3]
        ]
        return said

    def warnings(self, calibration: Calibration | None = None) -> list[str]:
        """Why the guarantee may be in doubt.

        Args:
            calibration: The rate and the number of images that it needs, once the threshold is set.
        """
        said = []
        facts, effective = self.roles["calibration"], self.effective_images
        one, many = self.by, _PLURAL.get(self.by, "")
        images = counted(facts.images, "calibration image")
        if facts.sessions and not facts.unknown and facts.sessions < FEW_SESSIONS:
            said.append(
                f"The threshold rests on {counted(facts.sessions, one, many)}: {images} of so few {many} hardly say "
                f"how others will score. Do not rely on the guarantee before good images of more {many} have come."
            )
        if self.shared_sessions and one in {"lot", "shift"}:
            said.append(
                f"Training and calibration share {counted(self.shared_sessions, one, many)}: there were too few to "
                f"keep them apart, or split.by says so. What is guaranteed holds for these {many}, not for new ones. "
                f"Add good images of more {many}, set split.renew_holdout, and split again."
            )
        if (
            calibration is not None
            and calibration.attainable
            and effective is not None
            and effective < calibration.images_needed
        ):
            said.append(
                f"The {images} count as about {effective:,} independent ones, and a false-reject rate of "
                f"{exact_percent(calibration.false_reject_rate)} needs {calibration.images_needed:,}: add good images "
                f"of more {many}, rather than more images of the same."
            )
        clear = [shift for shift in self.shifts if shift.distance >= CLEAR_SHIFT]
        if clear:
            which = ", ".join(shift.statistic for shift in clear[:3])
            how = "come from another session than" if one and not self.shared_sessions else "are not like"
            said.append(
                f"Calibration images {how} training images, and it shows in their {which} (distance "
                f"{clear[0].distance:.2f} of 1). New parts that are like the training images may be rejected more "
                "often than guaranteed, or less. Check light and camera, and add good images until each role has both "
                "kinds."
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """As a value for `write_json`: numbers only."""
        return {
            **asdict(self),
            "shifts": {
                shift.statistic: {k: v for k, v in asdict(shift).items() if k != "statistic"} for shift in self.shifts
            },
        }

    @classmethod
    def from_json(cls, value: Any) -> "Grounds":
        """Read back what `to_json` gave.

        Raises:
            BadInputError: It is something else.
        """
        try:
            return cls(
                value["by"],
                {role: RoleFacts(**facts) for role, facts in value["roles"].items()},
                value["shared_sessions"],
                value["shared_images"],
                tuple(
                    sorted(
                        (RoleShift(name, **shift) for name, shift in value["shifts"].items()), key=lambda s: -s.distance
                    )
                ),
                None if value["dependence"] is None else Dependence(**value["dependence"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInputError(f"grounds: not as morphad writes them ({error!r}); evaluate again") from error
