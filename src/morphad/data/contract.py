"""The data contract: a Great Expectations suite that a line's manifest must meet before a model is trained on it."""

import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import: no telemetry
for _name in ("great_expectations", "great_expectations.data_context.types.base"):
    logging.getLogger(_name).setLevel(logging.ERROR)

import great_expectations as gx  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: E402

from morphad.settings import ValidateSettings  # noqa: E402

Severity = Literal["error", "warning"]

gxe: Any = gx.expectations

_GOOD = {"row_condition": 'label=="good"', "condition_parser": "pandas"}
_DEFECT = {"row_condition": 'label=="defect"', "condition_parser": "pandas"}
_MASKED = {"row_condition": 'label=="defect" and mask!=""', "condition_parser": "pandas"}
_NAMED = 5  # paths named in a message


@dataclass(frozen=True)
class Finding:
    """One thing that the data do not meet.

    Attributes:
        name: Of the check, such as "low_contrast".
        severity: "error" stops the line, "warning" is shown.
        message: What is wrong with which images (the first few paths), and what to do.
        count: How many images it concerns.
    """

    name: str
    severity: Severity
    message: str
    count: int


@dataclass(frozen=True)
class _Check:
    """An expectation with its arguments, and the words for when it is not met; {count} and {paths} are filled in."""

    name: str
    severity: Severity
    expectation: Any
    arguments: dict[str, Any]
    words: str
    offenders: "pd.Series[bool] | None" = None  # where the expectation itself names no rows


def check_manifest(manifest: pd.DataFrame, settings: ValidateSettings, line: str) -> list[Finding]:
    """Hold a manifest against the contract.

    Args:
        manifest: Rows of `read_manifest`.
        settings: Limits.
        line: The product line that the manifest should describe.

    Returns:
        What is not met, errors first; empty where all is well.
    """
    if manifest.empty:
        return [Finding("empty", "error", "the manifest has no images; check ingest.path and ingest again", 0)]
    table = _with_derived(manifest)
    checks = _checks(table, settings, line)
    expectations = [check.expectation(**check.arguments, meta={"check": check.name}) for check in checks]
    suite = gx.ExpectationSuite("contract", expectations=expectations)
    result = (
        _batch_definition()
        .get_batch({"dataframe": table})
        .validate(suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]})
    )
    outcomes = {outcome.expectation_config.meta["check"]: outcome for outcome in result.results}
    findings = [_finding(check, outcomes[check.name], table) for check in checks if not outcomes[check.name].success]
    return sorted(findings, key=lambda finding: finding.severity)


@cache
def _batch_definition() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return (
        context.data_sources.add_pandas("manifest")
        .add_dataframe_asset("manifest")
        .add_batch_definition_whole_dataframe("all")
    )


def _with_derived(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest with what the expectations look at beside its own columns."""
    table = manifest.reset_index(drop=True)
    height, width = table["height"] / table["height"].median(), table["width"] / table["width"].median()
    table["size_ratio"] = np.maximum.reduce([height, 1 / height, width, 1 / width])
    table["is_good"] = (table["label"] == "good").astype(int)
    table["channels"] = np.where(table["mode"].isin(["1", "L", "LA", "I;16"]), "grey", "colour")
    table["labels_of_bytes"] = table.groupby("sha256")["label"].transform("nunique")
    table["kinds_of_bytes"] = (
        table["defect"].where(table["label"] == "defect").groupby(table["sha256"]).transform("nunique")
    )
    return table


def _checks(table: pd.DataFrame, settings: ValidateSettings, line: str) -> list[_Check]:
    return [
        *_row_checks(line),
        *_good_checks(table, settings),
        *_uniformity_checks(table, settings),
        *_defect_checks(table, settings),
    ]


def _row_checks(line: str) -> list[_Check]:
    """What every row must hold, whatever the images look like."""
    return [
        _Check(
            "unique_paths", "error", gxe.ExpectColumnValuesToBeUnique, {"column": "path"},
            "{count} rows share a path: {paths}; ingest again",
        ),
        _Check(
            "sha256_format", "error", gxe.ExpectColumnValuesToMatchRegex,
            {"column": "sha256", "regex": "^[0-9a-f]{64}$"},
            "{count} rows hold no SHA-256: {paths}; ingest again",
        ),
        _Check(
            "line", "error", gxe.ExpectColumnValuesToBeInSet, {"column": "line", "value_set": [line]},
            f"{{count}} images belong to another line than {line}: {{paths}}; ingest again",
        ),
        _Check(
            "label", "error", gxe.ExpectColumnValuesToBeInSet, {"column": "label", "value_set": ["good", "defect"]},
            "{count} images are labelled neither good nor defect: {paths}; correct the listing and ingest again",
        ),
        _Check(
            "conflicting_labels", "error", gxe.ExpectColumnValuesToBeBetween,
            {"column": "labels_of_bytes", "max_value": 1},
            "{count} images have the same bytes as one with the other label: {paths}; remove the wrong ones",
        ),
    ]  # fmt: skip


def _good_checks(table: pd.DataFrame, settings: ValidateSettings) -> list[_Check]:
    """Whether the good images can carry a model."""
    good = table["label"] == "good"
    count = int(good.sum())
    white = ", or set ingest.white_level to the camera's" if (table["bit_depth"] == 16).any() else ""
    checks = [
        _Check(
            "min_good", "error", gxe.ExpectColumnSumToBeBetween,
            {"column": "is_good", "min_value": settings.min_good},
            f"only {count} good images, at least {settings.min_good} are needed (validate.min_good); add good images",
            good,
        ),
        _Check(
            "low_contrast", "error", gxe.ExpectColumnValuesToBeBetween,
            {"column": "contrast", "min_value": settings.min_contrast, **_GOOD},
            "{count} good images are nearly empty, their grey levels deviate by less than "
            f"{settings.min_contrast:g} (validate.min_contrast): {{paths}}; remove them{white}",
        ),
        _Check(
            "good_with_mask", "error", gxe.ExpectColumnValuesToBeBetween,
            {"column": "masked", "max_value": 0, **_GOOD},
            "{count} images are labelled good but their masks mark a defect: {paths}; correct label or mask",
        ),
    ]  # fmt: skip
    if count > 1:
        checks += [
            _Check(
                "duplicates", "error", gxe.ExpectColumnProportionOfUniqueValuesToBeBetween,
                {"column": "sha256", "min_value": 1 - settings.max_duplicates, **_GOOD},
                f"{{count}} of {count} good images are byte copies of others, at most {settings.max_duplicates:.0%} "
                "may be (validate.max_duplicates): {paths}; remove the copies",
                good & table["sha256"].where(good).duplicated(),
            ),
            _Check(
                "identical", "error", gxe.ExpectColumnUniqueValueCountToBeBetween,
                {"column": "perceptual_hash", "min_value": 2, **_GOOD},
                "all {count} good images look the same: {paths}; check that the camera delivers new images",
                good,
            ),
        ]  # fmt: skip
    return checks


def _uniformity_checks(table: pd.DataFrame, settings: ValidateSettings) -> list[_Check]:
    """Whether the images come from one camera with one set of settings."""
    channels, depth = str(table["channels"].mode()[0]), int(table["bit_depth"].mode()[0])
    size = f"{table['height'].median():g} x {table['width'].median():g} px"
    return [
        _Check(
            "size_outliers", "warning", gxe.ExpectColumnValuesToBeBetween,
            {"column": "size_ratio", "max_value": settings.max_size_ratio},
            f"{{count}} images are more than {settings.max_size_ratio:g} times larger or smaller than the median of "
            f"{size} (validate.max_size_ratio): {{paths}}; check that they come from the same camera and crop",
        ),
        _Check(
            "mixed_channels", "warning", gxe.ExpectColumnValuesToBeInSet,
            {"column": "channels", "value_set": [channels]},
            f"{{count}} images are not {channels} as the others: {{paths}}; save all alike, or the model learns the "
            "file format",
        ),
        _Check(
            "mixed_bit_depth", "warning", gxe.ExpectColumnValuesToBeInSet,
            {"column": "bit_depth", "value_set": [depth]},
            f"{{count}} images do not have {depth} bits as the others: {{paths}}; check the camera's settings",
        ),
    ]  # fmt: skip


def _defect_checks(table: pd.DataFrame, settings: ValidateSettings) -> list[_Check]:
    """What limits the figures that can be measured; a line without defects or masks is still a line."""
    if not (table["label"] == "defect").any():
        return [
            _Check(
                "no_defects", "warning", gxe.ExpectColumnDistinctValuesToContainSet,
                {"column": "label", "value_set": ["defect"]},
                "there are no defect images: overkill can be measured, but neither escapes nor AUROC",
                table["label"] == "defect",
            )
        ]  # fmt: skip
    checks = [
        _Check(
            "conflicting_defects", "warning", gxe.ExpectColumnValuesToBeBetween,
            {"column": "kinds_of_bytes", "max_value": 1, **_DEFECT},
            "{count} defect images have the same bytes as one of another kind: {paths}; one of them is evaluated",
        ),
        _Check(
            "low_contrast_defect", "warning", gxe.ExpectColumnValuesToBeBetween,
            {"column": "contrast", "min_value": settings.min_contrast, **_DEFECT},
            "{count} defect images are nearly empty, their grey levels deviate by less than "
            f"{settings.min_contrast:g}: {{paths}}; check that they show the part",
        ),
    ]  # fmt: skip
    masks = (table["mask"] != "").any()
    checks.append(_Check(
        "defect_without_mask" if masks else "no_masks", "warning", gxe.ExpectColumnValueLengthsToBeBetween,
        {"column": "mask", "min_value": 1, **_DEFECT},
        "{count} defect images have no mask, though others have: {paths}; pixel figures leave them out"
        if masks else "no defect image has a mask: figures are by image only",
    ))  # fmt: skip
    if masks:
        checks.append(_Check(
            "empty_mask", "warning", gxe.ExpectColumnValuesToBeBetween,
            {"column": "masked", "min_value": 0, "strict_min": True, **_MASKED},
            "{count} defect images have a mask that marks nothing: {paths}; pixel figures count them as all good",
        ))  # fmt: skip
    return checks


def _finding(check: _Check, outcome: Any, table: pd.DataFrame) -> Finding:
    if outcome.exception_info.get("raised_exception"):
        raise RuntimeError(f"check {check.name}: {outcome.exception_info['exception_message']}")
    if check.offenders is None:
        paths = [str(row["path"]) for row in outcome.result["unexpected_index_list"]]
    else:
        paths = table.loc[check.offenders, "path"].tolist()
    named = ", ".join(sorted(paths)[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
    # Not str.format: a path may hold braces.
    message = check.words.replace("{count}", str(len(paths))).replace("{paths}", named)
    return Finding(check.name, check.severity, message, len(paths))
