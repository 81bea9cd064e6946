"""What a picture takes is said before the training, and a budget that is too small is refused with what helps."""

import re

import pytest

from morphad.base.errors import BadInputError
from morphad.model.cost import Cost
from morphad.model.detector import Detector
from morphad.model.resolution import resolved
from morphad.settings.presets import train_settings
from tiny import TRAIN


def test_it_is_measured_with_what_the_settings_ask_for() -> None:
    tiled = {**TRAIN, "optimiser": {"steps": 0}, "resolution": {"smallest_defect": 8}}
    cost = Detector(train_settings(tiled)).cost([(1024, 1024)])
    assert (cost.tiled_size, cost.tiles) == ((1024, 1024), 9)
    assert cost.whole_ms > 0
    assert cost.tile_ms > 0
    assert str(cost) == f"9 tiles, {cost.whole_ms + 9 * cost.tile_ms:.0f} ms a picture on this machine"
    whole = Detector(train_settings({**TRAIN, "optimiser": {"steps": 0}})).cost([(1024, 1024)])
    assert (whole.tiles, whole.tile_ms) == (0, 0)
    assert str(whole).startswith("without tiles, ")


@pytest.mark.parametrize("budget", [60, 150, 400, 900])
def test_advice_that_is_followed_helps(budget: float) -> None:
    size, times = (3000, 4000), {"whole_ms": 50.0, "tile_ms": 20.0}

    def cost(defect: float | None) -> Cost:
        settings = resolved(train_settings({"resolution": {"smallest_defect": defect}}), [size])
        return Cost(**times, tiled_size=settings.resolution.tiled_size)

    asked = train_settings({"resolution": {"smallest_defect": 8, "budget_ms": budget}})
    with pytest.raises(BadInputError, match=rf"train\.resolution\.budget_ms = {budget}: \d+ tiles, ") as refused:
        cost(8).check(asked)
    message = str(refused.value)
    raised = re.search(r"raise it to (\d+)", message)
    larger = re.search(r"raise train\.resolution\.smallest_defect to ([\d.]+)", message)
    assert raised
    cost(8).check(train_settings({"resolution": {"smallest_defect": 8, "budget_ms": float(raised[1])}}))
    assert bool(larger) == (budget >= 150)
    if larger:
        cost(float(larger[1])).check(asked)
    assert "do without tiles (50 ms)" in message
    cost(None).check(asked)


def test_without_a_budget_nothing_is_refused() -> None:
    Cost(1e6, 0, None).check(train_settings({}))
