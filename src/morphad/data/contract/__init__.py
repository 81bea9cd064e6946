"""The data contract: what a line's manifest must meet before a model is trained on it.

Great Expectations is the engine (`engine`). What it checks is worked out before: columns of faults (`table`), limits
(`limits`), and how new images as a whole differ from those of the champion, the reference (`drift`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from morphad.base.wording import counted
from morphad.data.contract import engine, picture_rules
from morphad.data.contract.drift import CAMERA, shifts, unlikeness
from morphad.data.contract.findings import FORMAT_VERSION, Finding, Limits, Result, StatisticDrift, StatisticFacts
from morphad.data.contract.limits import far_limits, line_limits
from morphad.data.contract.rule import Rows, Rule
from morphad.data.contract.rules import figures, rules
from morphad.data.contract.table import comparable, with_derived
from morphad.data.manifest import manifest_id
from morphad.data.snapshot.copying import Reject
from morphad.settings import ValidateSettings
from morphad.settings.checks import CHECKS, SIZES, STATISTICS, Statistic, Weight

__all__ = [
    "CAMERA", "FORMAT_VERSION", "Finding", "Limits", "Result", "Shift", "StatisticFacts", "check_manifest", "comparable"
]  # fmt: skip

_MOST_SHIFTED = 24  # images that are named where the whole has shifted


def check_manifest(
    manifest: pd.DataFrame,
    settings: ValidateSettings,
    line: str,
    *,
    reference: pd.DataFrame | None = None,
    rejects: Sequence[Reject] = (),
    white_level: int = 65535,
    now: datetime | None = None,
    data_docs: Path | None = None,
) -> Result:
    """Hold a manifest against the contract.

    Images that the reference holds were accepted before; limits and shifts are checked in the others only.

    Args:
        manifest: Rows of `read_manifest`, with or without roles.
        settings: Limits and weights.
        line: The product line that the manifest should describe.
        reference: Rows of the manifest of the champion's data; None, or no rows, where there is none.
        rejects: Images that could not be read and are no rows of the manifest.
        white_level: The value of 16-bit files that was shown as white (`ingest.white_level`).
        now: Images taken later are from the future; None: now.
        data_docs: A folder for the pages of Great Expectations; None: they are not made.
    """
    if reference is not None and reference.empty:
        reference = None
    broken: dict[str, tuple[Rule, tuple[str, ...]]] = {}
    applied: set[str] = {"empty", "unreadable"}
    limits: dict[Statistic, Limits] = {}
    found: dict[str, StatisticDrift] = {}
    new = known = None
    if rejects:
        broken["unreadable"] = (_unreadable(rejects), tuple(reject.name for reject in rejects))
    if manifest.empty:
        broken["empty"] = (_EMPTY, ())
    else:
        table = with_derived(manifest, reference, settings, now or datetime.now(UTC))
        new, known = comparable(table[table["fresh"] == 1]), None if reference is None else comparable(reference)
        limits = line_limits(new, known, settings)
        comparison: list[Rule] = []
        if known is not None:
            found = shifts(new, known, settings)
            comparison = [*picture_rules.shifts(new, known, found, _most_shifted(new, known, found))]
        far = far_limits(new, known, settings)
        everything = rules(
            table, reference, limits, far, comparison=comparison, settings=settings, line=line, white_level=white_level
        )
        switched_on = [rule for rule in everything if _weight(rule.name, settings) != "off"]
        applied |= {rule.name for rule in switched_on}
        tables = {**_tables(table), "figures": figures(table, found, settings)}
        outcomes = engine.run(switched_on, tables)
        broken |= {rule.name: (rule, outcomes[rule.name].paths) for rule in switched_on if not outcomes[rule.name].met}
        for name in _told_better({name: paths for name, (_, paths) in broken.items()}):
            del broken[name]
        if data_docs is not None:
            engine.write_data_docs(switched_on, tables, data_docs)
    return Result(
        line=line,
        data_hash=manifest_id(manifest),
        counts={
            "images": len(manifest),
            "good": int((manifest["label"] == "good").sum()),
            "defect": int((manifest["label"] == "defect").sum()),
            "new_good": 0 if new is None else len(new),
        },
        reference=None
        if reference is None
        else {"data_hash": manifest_id(reference), "good": 0 if known is None else len(known)},
        findings=_findings(broken, settings),
        states={name: _state(name, applied, broken, settings) for name in CHECKS},
        statistics=tuple(_facts(name, new, known, limits, found) for name in STATISTICS),
        camera=found.get(CAMERA),
    )


def _tables(table: pd.DataFrame) -> dict[Rows, pd.DataFrame]:
    defect = table["label"] == "defect"
    return {
        "images": table,
        "fresh": table[table["fresh"] == 1],
        "good": table[table["good"] == 1],
        "new": table[table["held"] == 1],
        "defect": table[defect],
        "masked": table[defect & (table["mask"] != "")],
    }


_EMPTY = Rule("empty", "", {}, "the manifest has no images", "check ingest.path and ingest again")


def _unreadable(rejects: Sequence[Reject]) -> Rule:
    reasons = Counter(reject.reason for reject in rejects)
    said = ", ".join(reason for reason, _ in reasons.most_common(3)) + (", ..." if len(reasons) > 3 else "")
    return Rule("unreadable", "", {}, f"{{n}} that cannot be used ({said})", "replace or remove them")


def _weight(name: str, settings: ValidateSettings) -> Weight:
    return settings.severity.get(name, CHECKS[name])


def _told_better(broken: Mapping[str, tuple[str, ...]]) -> list[str]:
    """What is broken whose images another finding names too, and says more of them."""
    better = {f"{name}_outliers": [f"{name}_limits", f"{name}_extremes"] for name in STATISTICS}
    for name in SIZES:
        better[f"{name}_outliers"].append("size")
    better["copies"] = ["duplicates", "leakage_bytes"]
    return [
        name
        for name, others in better.items()
        if name in broken and any(set(broken[name]) <= set(broken.get(other, ())) for other in others)
    ]


def _most_shifted(
    new: pd.DataFrame, reference: pd.DataFrame, found: Mapping[str, StatisticDrift]
) -> dict[str, list[str]]:
    """For each shift the new images that show it most."""
    most: dict[str, list[str]] = {}
    for name, shift in found.items():
        if shift.drifted:
            far = pd.Series(unlikeness(new, reference)) if name == CAMERA else new[name] - reference[name].median()
            far = far if far.median() >= 0 else -far
            most[name] = new["path"][far.sort_values(ascending=False, kind="stable").index[:_MOST_SHIFTED]].tolist()
    return most


def _findings(broken: Mapping[str, tuple[Rule, tuple[str, ...]]], settings: ValidateSettings) -> tuple[Finding, ...]:
    found = []
    for name in CHECKS:
        weight = _weight(name, settings)
        if name in broken and weight != "off":
            rule, paths = broken[name]
            message = rule.message.replace("{n}", counted(len(paths), rule.noun))
            found.append(Finding(name, weight, message, rule.remedy, paths, len(paths)))
    return tuple(sorted(found, key=lambda finding: finding.severity))


def _state(name: str, applied: set[str], broken: Mapping[str, object], settings: ValidateSettings) -> str:
    if _weight(name, settings) == "off":
        return "off"
    if name in broken:
        return "broken"
    return "met" if name in applied else "not applicable"


def _facts(
    name: Statistic,
    new: pd.DataFrame | None,
    known: pd.DataFrame | None,
    limits: Mapping[Statistic, Limits],
    found: Mapping[str, StatisticDrift],
) -> StatisticFacts:
    now, before = (None if rows is None or rows.empty else float(rows[name].median()) for rows in (new, known))
    return StatisticFacts(name, now, before, limits.get(name), found.get(name))
