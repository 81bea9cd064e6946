"""The rules for what the images show: usable at all, one camera, within limits, like the reference, no copies."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from morphad.base.wording import counted, exact_percent, percent
from morphad.data.contract.drift import CAMERA
from morphad.data.contract.findings import Limits, StatisticDrift
from morphad.data.contract.limits import LEAST_CONTRAST, least_sharpness
from morphad.data.contract.rule import Rule, between, flag
from morphad.data.contract.table import channels, sizes
from morphad.settings import ValidateSettings
from morphad.settings.checks import Statistic

_WHITE_LEVELS = (1023, 4095, 16383)  # of cameras of 10, 12 and 14 bits

_WHENCE = {"settings": "validate.limits.{name}", "reference": "from the reference", "set": "from the others"}
_REMEDIES: dict[Statistic, str] = {
    "brightness": "check lamps, exposure and aperture",
    "contrast": "check lamps, exposure, and haze or dirt on the lens",
    "sharpness": "check focus, dirt on the lens, and motion of the part",
    "entropy": "check exposure, gain and the format that images are saved in",
    "dark": "check exposure, shadows, and that the part is in the picture",
    "saturated": "check exposure, gain and reflections",
    "height": "check the camera's resolution and the crop",
    "width": "check the camera's resolution and the crop",
    "aspect": "check the camera's resolution and the crop",
}
_ONE_SIZE = 0.9  # share of images of one size from which on it is the line's
_NAMES: dict[Statistic, str] = {"dark": "share of black pixels", "saturated": "share of white pixels"}


def usable(table: pd.DataFrame) -> Iterator[Rule]:
    """Images that no line can use."""
    white = ", or set ingest.white_level to the camera's" if (table["bit_depth"] == 16).any() else ""
    for name, what, remedy in (
        ("black", "all black", "remove them; check lamps, trigger and lens cap"),
        ("white", "all white", "remove them; check exposure and stray light"),
        ("blank", f"without content (grey levels deviate by less than {LEAST_CONTRAST:g})",
         "remove them; check that the part is in the picture"),
        ("blurred", f"without any sharp detail (variance of the Laplacian below {least_sharpness(table):.2g})",
         "remove them; check focus and motion"),
    ):  # fmt: skip
        yield Rule(
            name, "ExpectColumnValuesToNotBeInSet", {"column": "unusable", "value_set": [name]},
            f"{{n}} {what}", remedy + white, "good image", "good",
        )  # fmt: skip
    if (table["label"] == "defect").any():
        yield Rule(
            "unusable_defect", "ExpectColumnValuesToBeInSet", {"column": "unusable", "value_set": [""]},
            "{n} black, white, blank or without sharp detail", "check that they show the part",
            "defect image", "defect",
        )  # fmt: skip


def one_camera(table: pd.DataFrame, reference: pd.DataFrame | None) -> Iterator[Rule]:
    """One kind of file, as in the reference."""
    basis = table if reference is None else reference.assign(channels=channels(reference), size=sizes(reference))
    whose = "the others" if reference is None else "the reference"
    for name, unit, remedy in (
        ("size", " px", "check the camera's resolution and the crop"),
        ("channels", "", "save all alike, or the model learns the file format"),
        ("bit_depth", " bits", "check the camera's settings"),
    ):
        usual = basis[name].mode()[0]
        if name == "size" and (basis[name] == usual).mean() < _ONE_SIZE:
            continue
        usual = int(usual) if name == "bit_depth" else str(usual)
        yield Rule(
            name, "ExpectColumnValuesToBeInSet", {"column": name, "value_set": [usual]},
            f"{{n}} not of {usual}{unit} as {whose}", remedy, rows="fresh",
        )  # fmt: skip


def bits_in_use(table: pd.DataFrame, white_level: int) -> Iterator[Rule]:
    """A camera of 12 bits that saves files of 16 is distinguished from a dark picture by the line's highest value."""
    deep = table[table["bit_depth"] == 16]
    if deep.empty:
        return
    highest = int(deep["peak"].max())
    levels = {level: round(level * 255 / white_level) for level in _WHITE_LEVELS if level < white_level}
    fits = next((level for level, shown in levels.items() if highest <= shown), None)
    yield Rule(
        "white_level", "ExpectColumnMaxToBeBetween", between("peak", 0 if fits is None else levels[fits] + 1),
        f"the {counted(len(deep), '16-bit image')} use {highest + 1} of 256 grey levels: no value is above {fits}",
        f"if the camera has {0 if fits is None else fits.bit_length()} bits, set ingest.white_level: {fits} and ingest "
        "again",
        rows="images", paths=(),
    )  # fmt: skip


def statistics(
    table: pd.DataFrame,
    limits: Mapping[Statistic, Limits],
    far: Mapping[Statistic, Limits],
    settings: ValidateSettings,
) -> Iterator[Rule]:
    """New good images within the limits: each, all but a few, and none far outside."""
    held = int(table["held"].sum())
    if not held:
        return
    for name, limit in limits.items():
        article = "an" if name[0] in "aeiou" else "a"
        what = f"{article} {_NAMES.get(name, name)}"
        outside = f"{_span(name, limit)} (limit {_WHENCE[limit.source].format(name=name)})"
        arguments = between(name, limit.low, limit.high)
        # Limits drawn from the images themselves may be those of one half of a line with two kinds of light.
        if limit.source != "set":
            most = exact_percent(settings.max_outliers)
            yield Rule(
                f"{name}_limits", "ExpectColumnValuesToBeBetween", {**arguments, "mostly": 1 - settings.max_outliers},
                f"{{n}} of {held:,} with {what} {outside}; at most {most} may be (validate.max_outliers)",
                _REMEDIES[name], "good image", "new",
            )  # fmt: skip
        yield Rule(
            f"{name}_outliers", "ExpectColumnValuesToBeBetween", arguments,
            f"{{n}} of {held:,} with {what} {outside}", f"check them; {_REMEDIES[name]}", "good image", "new",
        )  # fmt: skip
        if name in far:
            yield Rule(
                f"{name}_extremes", "ExpectColumnValuesToBeBetween", between(name, far[name].low, far[name].high),
                f"{{n}} of {held:,} with {what} far {outside}", f"remove them; {_REMEDIES[name]}", "good image", "new",
            )  # fmt: skip


def shifts(
    new: pd.DataFrame,
    reference: pd.DataFrame,
    found: Mapping[str, StatisticDrift],
    most_shifted: Mapping[str, Sequence[str]],
) -> Iterator[Rule]:
    """Whether new images as a whole are like the reference; both are results of `comparable`."""
    images = counted(len(new), "new good image")
    for key, shift in found.items():
        strength = (
            f"(the distributions differ by {percent(shift.effect)} of the images, {percent(shift.allowed)} may be; by "
            f"chance in {percent(max(shift.p_value, 1e-9), 2)} of the cases)"
        )
        if key == CAMERA:
            name = CAMERA
            message = f"what {images} show, and where, is not as in the reference {strength}"
            remedy = (
                "check that the camera was not moved, turned or cropped otherwise, and that it is the same part; if "
                "the change is meant, set validate.severity.camera to warning until a model that knows it is promoted"
            )
        else:
            statistic: Statistic = key  # type: ignore[assignment]
            name = f"{key}_drift"
            now, before = (_value(statistic, rows[key].median()) for rows in (new, reference))
            message = (
                f"the {_NAMES.get(statistic, key)} of {images} has shifted against the reference: median {now} instead "
                f"of {before} {strength}"
            )
            remedy = f"{_REMEDIES[statistic]}; if the change is meant, the next promotion makes it the reference"
        yield Rule(
            name, "ExpectColumnValuesToBeBetween", between(f"{key}_shift", high=0), message, remedy,
            rows="figures", paths=most_shifted.get(key, ()),
        )  # fmt: skip


def copies(table: pd.DataFrame, settings: ValidateSettings) -> Iterator[Rule]:
    """Not the same image again and again."""
    good = table["good"] == 1
    count = int(good.sum())
    if count < 2:
        return
    copies = table["byte_copy"] == 1
    yield flag(
        "copies", "{n} with the same bytes as one before", "remove them; the split uses one of each",
        column="byte_copy", noun="good image", rows="good",
    )  # fmt: skip
    yield Rule(
        "duplicates", "ExpectColumnProportionOfUniqueValuesToBeBetween", between("sha256", 1 - settings.max_duplicates),
        f"{int(copies.sum()):,} of {count:,} good images are byte copies of others, at most "
        f"{exact_percent(settings.max_duplicates)} may be (validate.max_duplicates)",
        "remove the copies", rows="good", paths=table.loc[copies, "path"].tolist(),
    )  # fmt: skip
    if settings.near_duplicate_bits:
        near = table["near_copy"] == 1
        yield Rule(
            "near_duplicates", "ExpectColumnMeanToBeBetween", between("near_copy", high=settings.max_near_duplicates),
            f"{int(near.sum()):,} of {count:,} good images are near copies of others, at most "
            f"{exact_percent(settings.max_near_duplicates)} may be (validate.max_near_duplicates)",
            "the split keeps them together: add images of other parts; where they do show different parts that are "
            "alike, lower near_duplicate_bits under split and validate",
            rows="good", paths=table.loc[near, "path"].tolist(),
        )  # fmt: skip
    yield Rule(
        "identical", "ExpectColumnUniqueValueCountToBeBetween", between("perceptual_hash", 2),
        f"all {count:,} good images look the same", "check that the camera delivers new images",
        rows="good", paths=table.loc[good, "path"].tolist(),
    )  # fmt: skip


def _span(name: Statistic, limit: Limits) -> str:
    """What lies outside a limit: "outside 71 to 520", "below 71"."""
    if limit.low is None or limit.high is None:
        return (
            f"above {_value(name, limit.high)}" if limit.high is not None else f"below {_value(name, limit.low or 0.0)}"
        )
    return f"outside {_value(name, limit.low)} to {_value(name, limit.high)}"


def _value(name: Statistic, value: float) -> str:
    return percent(value) if name in {"dark", "saturated"} else f"{value:.4g}"
