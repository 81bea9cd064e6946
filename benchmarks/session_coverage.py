"""What a guaranteed false-reject rate is worth when calibration images come from few lots: a simulation.

    python -m benchmarks.session_coverage

Scores of good images are normal; a share of their variance, the intraclass correlation, lies between lots. A threshold
for 5 % is set on 200 images of k lots, and its true rate over images of new lots is exact. Printed: the rate on average
over 4,000 calibrations, the rate that one calibration in twenty exceeds, and about how many independent images the 200
count as.
"""

import numpy as np
from scipy import stats

from morphad.base.wording import percent
from morphad.decision.calibration import calibrate
from morphad.decision.grounds import Dependence, Grounds, RoleFacts

IMAGES, RATE, TRIALS = 200, 0.05, 4000


def main() -> None:
    """Simulate and print a Markdown table."""
    print("| lots | correlation | rate on average | exceeded once in 20 | counts as |\n|---|---|---|---|---|")
    for within in (0.0, 0.1, 0.5):
        for lots in (1, 2, 4, 10, 40):
            rates = _rates(lots, within, np.random.default_rng(0))
            size = IMAGES // lots
            facts = RoleFacts(IMAGES, lots, 0, float(lots * size**2))
            effective = Grounds("lot", {"calibration": facts}, 0, 0, (), Dependence(within, 0)).effective_images
            average, high = (percent(float(rate)) for rate in (rates.mean(), np.quantile(rates, 0.95)))
            print(f"| {lots} | {within:.1f} | {average} | {high} | {effective} |")


def _rates(lots: int, within: float, rng: np.random.Generator) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rates = np.empty(TRIALS)
    for trial in range(TRIALS):
        levels = np.repeat(rng.normal(size=lots), IMAGES // lots)
        scores = np.sqrt(within) * levels + np.sqrt(1 - within) * rng.normal(size=IMAGES)
        threshold = calibrate(scores, RATE).threshold
        rates[trial] = stats.norm.sf(threshold if threshold is not None else np.inf)
    return rates


if __name__ == "__main__":
    main()
