"""The rules of the contract, and those for rows, labels, counts, what is known beside the pixels, and leakage."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from morphad.base.wording import counted
from morphad.data.contract import picture_rules
from morphad.data.contract.findings import Limits, StatisticDrift
from morphad.data.contract.rule import Rule, between, flag
from morphad.data.contract.table import KNOWN_BESIDE
from morphad.settings import ValidateSettings
from morphad.settings.checks import Statistic

_AGAIN = "ingest again"


def rules(
    table: pd.DataFrame,
    reference: pd.DataFrame | None,
    limits: Mapping[Statistic, Limits],
    far: Mapping[Statistic, Limits],
    *,
    comparison: Iterable[Rule],
    settings: ValidateSettings,
    line: str,
    white_level: int,
) -> list[Rule]:
    """What applies to these images.

    Args:
        table: Result of `with_derived`.
        reference: Rows of the reference; None without one.
        limits: Result of `line_limits`.
        far: Result of `far_limits`.
        comparison: Result of `picture_rules.shifts`.
        settings: Limits.
        line: The product line that the manifest should describe.
        white_level: The value of 16-bit files that was shown as white (`ingest.white_level`).
    """
    return [
        *_rows(line),
        *_labels(table, reference, settings),
        *_counts(table, settings),
        *picture_rules.usable(table),
        *picture_rules.one_camera(table, reference),
        *picture_rules.bits_in_use(table, white_level),
        *picture_rules.statistics(table, limits, far, settings),
        *comparison,
        *picture_rules.copies(table, settings),
        *_beside(table),
        *_leakage(table),
    ]


def figures(table: pd.DataFrame, shifts: Mapping[str, StatisticDrift], settings: ValidateSettings) -> pd.DataFrame:
    """Figures of the whole that rules check: one row.

    Columns: the effect of each shift where it counts as one, else 0; masks and groups, how many images have one; roles,
    by how many good images the scarcest role exceeds its minimum.
    """
    row: dict[str, float] = {f"{key}_shift": shift.effect if shift.drifted else 0.0 for key, shift in shifts.items()}
    row["masks"] = float((table["mask"] != "").sum())
    row["groups"] = float((table[["group", "lot", "shift", "camera"]] != "").any(axis=1).sum())
    if "role" in table:
        row["roles"] = float(min(there - least for there, least in _by_role(table, settings).values()))
    return pd.DataFrame([row])


def _by_role(table: pd.DataFrame, settings: ValidateSettings) -> dict[str, tuple[int, int]]:
    """Good images of each role, and how many it needs."""
    there = table.loc[table["good"] == 1, "part"].value_counts()
    return {role: (int(there.get(role, 0)), least) for role, least in settings.min_role.model_dump().items()}


def _rows(line: str) -> Iterator[Rule]:
    yield Rule(
        "unique_paths",
        "ExpectColumnValuesToBeUnique",
        {"column": "path"},
        "{n} with the path of another",
        _AGAIN,
        "row",
    )
    yield Rule(
        "sha256_format", "ExpectColumnValuesToMatchRegex", {"column": "sha256", "regex": "^[0-9a-f]{64}$"},
        "{n} without a SHA-256", _AGAIN, "row",
    )  # fmt: skip
    yield Rule(
        "line", "ExpectColumnValuesToBeInSet", {"column": "line", "value_set": [line]},
        f"{{n}} of another line than {line}", _AGAIN,
    )  # fmt: skip


def _labels(table: pd.DataFrame, reference: pd.DataFrame | None, settings: ValidateSettings) -> Iterator[Rule]:
    correct = "correct the label at its source and ingest again"
    yield Rule(
        "label", "ExpectColumnValuesToBeInSet", {"column": "label", "value_set": ["good", "defect"]},
        "{n} labelled neither good nor defect", correct,
    )  # fmt: skip
    yield Rule(
        "conflicting_labels", "ExpectColumnValuesToBeBetween", between("labels_of_bytes", high=1),
        "{n} with the same bytes as one with the other label", "remove the wrong ones",
    )  # fmt: skip
    yield Rule(
        "good_with_kind", "ExpectColumnValuesToBeInSet", {"column": "defect", "value_set": [""]},
        "{n} with a kind of defect", correct, "good image", "good",
    )  # fmt: skip
    yield flag(
        "good_with_mask",
        "{n} whose masks mark a defect",
        "correct label or mask",
        column="masked",
        noun="good image",
        rows="good",
    )
    if not (table["label"] == "defect").any():
        return
    yield Rule(
        "defect_without_kind", "ExpectColumnValuesToNotBeInSet", {"column": "defect", "value_set": [""]},
        "{n} of no kind", "name the kind, or figures by kind leave them out", "defect image", "defect",
    )  # fmt: skip
    known = settings.defect_kinds or _kinds(reference)
    if known:
        whence = "validate.defect_kinds" if settings.defect_kinds else "the reference"
        yield Rule(
            "defect_kinds", "ExpectColumnValuesToBeInSet", {"column": "defect", "value_set": [*known, ""]},
            f"{{n}} of a kind that {whence} does not know ({', '.join(known)})",
            "correct the kind if it is misspelt; a new kind joins figures with the next holdout",
            "defect image", "defect",
        )  # fmt: skip
    yield Rule(
        "conflicting_defects", "ExpectColumnValuesToBeBetween", between("kinds_of_bytes", high=1),
        "{n} with the same bytes as one of another kind", "remove the wrong ones; one of them is evaluated",
        "defect image", "defect",
    )  # fmt: skip
    if (table["mask"] == "").all():
        yield Rule(
            "no_masks", "ExpectColumnValuesToBeBetween", between("masks", 1), "no defect image has a mask",
            "figures are by image only; add masks to measure where defects are found", rows="figures", paths=(),
        )  # fmt: skip
        return
    yield Rule(
        "defect_without_mask", "ExpectColumnValueLengthsToBeBetween", between("mask", 1),
        "{n} without a mask, though others have one", "add masks, or pixel figures leave them out",
        "defect image", "defect",
    )  # fmt: skip
    yield Rule(
        "empty_mask", "ExpectColumnValuesToBeBetween", between("masked", 0, strict_min=True),
        "{n} with a mask that marks nothing", "correct the masks; pixel figures count these images as all good",
        "defect image", "masked",
    )  # fmt: skip
    most = (table.loc[table["mask"] != "", "masked"] > 0.5).mean() > 0.5
    yield Rule(
        "inverted_masks", "ExpectColumnValuesToBeBetween", between("masked", high=0.5 if most else 1),
        "{n} with a mask that marks more than half of the picture",
        "if black marks the defect in them, invert the masks: a defect is white, all else is black",
        "defect image", "masked",
    )  # fmt: skip


def _kinds(reference: pd.DataFrame | None) -> tuple[str, ...]:
    if reference is None:
        return ()
    return tuple(sorted(set(reference.loc[reference["label"] == "defect", "defect"]) - {""}))


def _counts(table: pd.DataFrame, settings: ValidateSettings) -> Iterator[Rule]:
    good = int(table["good"].sum())
    yield Rule(
        "min_good", "ExpectColumnSumToBeBetween", between("good", settings.min_good),
        f"only {counted(good, 'good image')}, at least {settings.min_good} are needed (validate.min_good)",
        "add good images", paths=(),
    )  # fmt: skip
    if "role" in table:
        by_role = _by_role(table, settings).items()
        few = [f"{role} has {there} of {least}" for role, (there, least) in by_role if there < least]
        yield Rule(
            "role_counts", "ExpectColumnValuesToBeBetween", between("roles", 0),
            f"too few good images by role: {', '.join(few)} (validate.min_role)",
            "add good images, or change the shares under split", rows="figures", paths=(),
        )  # fmt: skip
    yield Rule(
        "no_defects", "ExpectColumnDistinctValuesToContainSet", {"column": "label", "value_set": ["defect"]},
        "there are no defect images", "overkill can be measured, but neither escapes nor AUROC: add labelled defects",
        paths=(),
    )  # fmt: skip


def _beside(table: pd.DataFrame) -> Iterator[Rule]:
    yield Rule(
        "no_groups", "ExpectColumnValuesToBeBetween", between("groups", 1),
        "no image has a group, lot, shift or camera", "give them (ingest.metadata), so that the split keeps them apart",
        rows="figures", paths=(),
    )  # fmt: skip
    for name in KNOWN_BESIDE:
        if (table[name] != "").any():
            what = "time (acquired)" if name == "acquired" else name
            yield flag(
                f"{name}_missing",
                f"{{n}} without a {what}, though others have one",
                f"give the {what} of all, or of none",
            )
    if (table["acquired"] != "").any():
        clock = "set the camera's clock, and correct the times"
        yield flag("acquired_format", "{n} whose time (acquired) is none", "write it as 2025-03-01T14:05:00Z")
        yield flag("acquired_future", "{n} from the future", clock)
        yield flag("acquired_implausible", "{n} from before the year 2000", clock)
        yield flag("time_order", "{n} whose time breaks the order of their names", f"check their times; {clock}")


def _leakage(table: pd.DataFrame) -> Iterator[Rule]:
    if len(set(table["part"]) - {""}) < 2:
        return
    parts = "roles" if "role" in table else "parts of the set"
    yield flag(
        "leakage_bytes", f"{{n}} whose bytes are in two {parts} (train and test, say)",
        "keep one of each; what is measured on the others was seen in training", column="leak_bytes",
    )  # fmt: skip
    yield flag(
        "leakage_near", f"{{n}} that are near copies of one in another of the {parts}",
        "check whether they show one part twice, and keep these together", column="leak_near", noun="good image",
    )  # fmt: skip
    yield flag(
        "leakage_group", f"{{n}} whose group is in two {parts}",
        "keep a group together: run `morphad split` again", column="leak_group", noun="good image",
    )  # fmt: skip
