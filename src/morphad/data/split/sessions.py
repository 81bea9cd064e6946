"""Which images belong to one session, and what follows for the threshold: how many sessions stand behind each role."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from morphad.decision.grounds import Dependence, Grounds, RoleFacts, RoleShift
from morphad.settings.checks import STATISTICS

By = Literal["auto", "group", "lot", "shift", "camera", "day"]

_ROLES = ("train", "calibration", "holdout")
_MOST_LIKELY = ("lot", "shift", "group", "day")
_SIGNIFICANT = 0.001


def session_keys(rows: pd.DataFrame, by: By) -> "pd.Series[str]":
    """Names the session of each row; "" where it is not known, and everywhere for "group", which ties by itself.

    Args:
        rows: Rows of a manifest.
        by: What separates sessions. "auto": the lot where any is known, else the shift where any is known. A shift is
            that of its day, where the time is known. A camera is no session of its own in "auto": all cameras of a
            line go on taking pictures, so that each belongs to every role.
    """
    if by == "auto":
        by = next((name for name in ("lot", "shift") if (rows[name] != "").any()), "group")
    if by == "group":
        return pd.Series("", index=rows.index, dtype="str")
    values = _values(rows, by)
    return (f"{by} " + values).where(values != "", "")


def session_facts(
    rows: pd.DataFrame,
    by: By,
    calibration_scores: NDArray[np.float64] | None = None,
    holdout_scores: "pd.Series[float] | None" = None,
) -> Grounds:
    """What the guarantee of a threshold rests on.

    Args:
        rows: The manifest with roles.
        by: As the split was asked.
        calibration_scores: [n] of the good calibration images, in any order.
        holdout_scores: Of holdout images, by path.
    """
    good = rows[(rows["label"] == "good") & rows["role"].isin(_ROLES)]
    ways = _MOST_LIKELY if by in {"auto", "group"} else (by,)
    word = next((way for way in ways if (_values(good, way) != "").any()), "")
    session = _values(good, word) if word else pd.Series("", index=good.index, dtype="str")
    train, calibration = (session[good["role"] == role] for role in ("train", "calibration"))
    shared = calibration.isin(set(train) - {""})
    dependence = None
    if holdout_scores is not None:
        held = good[good["role"] == "holdout"]
        scores = held["path"].map(holdout_scores).to_numpy(np.float64)
        if calibration_scores is not None and scores.size and calibration_scores.size:
            dependence = Dependence(
                within=intraclass(scores, session[held.index].to_numpy(str)),
                distance=float(stats.ks_2samp(calibration_scores, scores).statistic),
            )
    return Grounds(
        by=word,
        roles={role: _role_facts(session[good["role"] == role]) for role in _ROLES},
        shared_sessions=int(calibration[shared].nunique()),
        shared_images=int(shared.sum()),
        shifts=_shifts(good[good["role"] == "train"], good[good["role"] == "calibration"]),
        dependence=dependence,
    )


def _values(rows: pd.DataFrame, by: str) -> "pd.Series[str]":
    day = rows["acquired"].str.slice(0, 10)
    if by == "day":
        return day
    if by == "shift":
        shift = rows["shift"]
        return (day + " " + shift).str.strip().where(shift != "", "")
    return rows[by]


def _role_facts(session: "pd.Series[str]") -> RoleFacts:
    sizes = session[session != ""].value_counts()
    return RoleFacts(len(session), len(sizes), int((session == "").sum()), float((sizes**2).sum()))


def _shifts(train: pd.DataFrame, calibration: pd.DataFrame) -> tuple[RoleShift, ...]:
    """Statistics in which calibration images differ from training images, the clearest first."""
    if train.empty or calibration.empty:
        return ()
    found = []
    for name in STATISTICS:
        ours, theirs = (_statistic(rows, name) for rows in (calibration, train))
        test = stats.ks_2samp(ours, theirs, method="asymp")
        if test.pvalue * len(STATISTICS) < _SIGNIFICANT:
            found.append(RoleShift(name, float(test.statistic), float(np.median(theirs)), float(np.median(ours))))
    return tuple(sorted(found, key=lambda shift: -shift.distance))


def _statistic(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    values = rows["width"] / rows["height"] if name == "aspect" else rows[name]
    return values.to_numpy(np.float64)


def intraclass(scores: NDArray[np.floating[Any]], session: NDArray[np.str_]) -> float | None:
    """The share of the variance of the ranks of scores that lies between sessions, 0 to 1.

    By one-way analysis of variance for sessions of unequal size; 0 where chance alone may be behind it (F test at 5 %);
    None with fewer than two sessions or no session of two.
    """
    known = session != ""
    ranks = stats.rankdata(scores[known])
    _, number, sizes = np.unique(session[known], return_inverse=True, return_counts=True)
    n, k = ranks.size, sizes.size
    if k < 2 or n <= k:
        return None
    means = np.bincount(number, ranks) / sizes
    between = float(sizes @ (means - ranks.mean()) ** 2) / (k - 1)
    within = float(((ranks - means[number]) ** 2).sum()) / (n - k)
    if between <= within * stats.f.ppf(0.95, k - 1, n - k):
        return 0.0
    size = (n - float((sizes**2).sum()) / n) / (k - 1)
    return float((between - within) / (between + (size - 1) * within))
