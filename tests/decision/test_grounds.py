"""What a threshold rests on: the words say it, and the numbers survive JSON."""

import pytest

from morphad.base.errors import BadInputError
from morphad.decision.calibration import calibrate
from morphad.decision.grounds import Dependence, Grounds, RoleFacts, RoleShift


def grounds(within: float | None = 0.5, calibration: RoleFacts | None = None) -> Grounds:
    roles = {
        "train": RoleFacts(600, 12, 0, 30_000.0),
        "calibration": calibration or RoleFacts(200, 4, 0, 10_000.0),
        "holdout": RoleFacts(150, 3, 0, 7_500.0),
    }
    shifts = (RoleShift("brightness", 0.6, 118.0, 131.0), RoleShift("contrast", 0.25, 20.0, 22.0))
    return Grounds("lot", roles, 0, 0, shifts, Dependence(within, 0.1))


def test_json_is_without_loss() -> None:
    for one in (grounds(), grounds(None)):
        assert Grounds.from_json(one.to_json()) == one
    with pytest.raises(BadInputError, match="grounds: not as morphad writes them"):
        Grounds.from_json({"by": "lot"})


@pytest.mark.parametrize(("within", "effective"), [(0.0, 200), (1.0, 4), (0.5, 8), (None, None)])
def test_images_of_one_lot_count_as_fewer(within: float | None, effective: int | None) -> None:
    assert grounds(within).effective_images == effective


def test_images_of_no_known_lot_count_each() -> None:
    assert grounds(1.0, RoleFacts(200, 2, 100, 5_000.0)).effective_images == pytest.approx(200 / 25.5, abs=1)


def test_a_rate_that_needs_more_independent_images_is_warned_of() -> None:
    def about(rate: float) -> list[str]:
        said = grounds(0.5).warnings(calibrate(range(200), rate))
        return [warning for warning in said if "independent" in warning]

    assert about(0.2) == []
    assert about(0.05) == [
        "The 200 calibration images count as about 8 independent ones, and a false-reject rate of 5 % needs 19: add "
        "good images of more lots, rather than more images of the same."
    ]
    assert about(0.001) == []  # there is no threshold at all, which is said elsewhere


def test_sentences_tell_the_numbers() -> None:
    first, second, *shifts = grounds().sentences()
    assert first.startswith(
        "Good images come from 12 lots (600 images) for training, 4 lots (200 images) for calibration, 3 lots (150 "
        "images) for holdout. What is guaranteed holds for new lots"
    )
    assert second == (
        "Of how scores of good images in the holdout differ, 50.0 % lies between lots: the 200 calibration images "
        "count as about 8 independent ones."
    )
    assert shifts[0] == (
        "Calibration images differ from training images in brightness: median 131 instead of 118 (Kolmogorov-Smirnov "
        "distance 0.60)."
    )
    assert [w.split(",")[0] for w in grounds().warnings()] == [
        "Calibration images come from another session than training images"
    ]
