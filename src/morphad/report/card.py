"""The model card: what a version is good for, what it rests on and where it is blind, on two screens of Markdown.

MLflow shows it as the version's description. It says nothing that was not measured or set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from morphad.base.wording import counted, exact_percent, percent
from morphad.decision.calibration import Calibration
from morphad.decision.gate_checks import MIN_KIND
from morphad.decision.grounds import Grounds
from morphad.report.markdown import code, prose
from morphad.report.region import region_sentences
from morphad.report.template import span
from morphad.report.verdict import verdict
from morphad.settings import LineSettings

MOST_KINDS = 12  # kinds of defect that are listed; the rest is counted
_MOST_NAMES = 8
_ROLES = {"train": "Training", "calibration": "Calibration", "holdout": "Holdout", "excluded": "Left out"}
_FULL = "`per_defect` in report/metrics.json of the run, and report/index.html"


@dataclass(frozen=True)
class CardFacts:
    """What a card says of data and code.

    Attributes:
        counts: Images by role and label, such as {"train": {"good": 120}}.
        kinds: Kinds of defect of which there are images, whatever their role.
        acquired: The first and the last time of an image, ISO 8601; None where no time is known.
        undated: Images whose time is not known.
        sizes: Smallest and largest (height, width), px, by area; None without images.
        formats: Pixel layouts and bit depths, such as "RGB, 8 bit".
        cameras: Cameras that are known.
        data_hash: Of the manifest.
        holdout_id: Of the frozen holdout.
        data_version: The same data as a version of the data registry; "" where it is none.
        licence: Of the images; "" where it is not known.
        morphad: Its version.
        code_revision: Of the code; "" where it is not known.
        image_digest: Of the container image; "" where it is not known.
    """

    counts: Mapping[str, Mapping[str, int]]
    kinds: frozenset[str]
    acquired: tuple[str, str] | None
    undated: int
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    formats: tuple[str, ...]
    cameras: int
    data_hash: str
    holdout_id: str
    data_version: str = ""
    licence: str = ""
    morphad: str = ""
    code_revision: str = ""
    image_digest: str = ""

    @classmethod
    def of(cls, rows: pd.DataFrame, **origin: str) -> "CardFacts":
        """The facts of a manifest with roles; `origin` are the attributes from `data_hash` on."""
        dated = rows.loc[rows["acquired"] != "", "acquired"]
        area = rows["height"] * rows["width"]
        extent = [(int(rows["height"].iloc[at]), int(rows["width"].iloc[at])) for at in _extremes(area)]
        defects = rows[rows["label"] == "defect"]
        return cls(
            counts={
                str(role): {str(label): int(n) for label, n in group["label"].value_counts().items()}
                for role, group in rows.groupby("role")
            },
            kinds=frozenset(str(kind) or "defect" for kind in defects["defect"].unique()),
            acquired=None if dated.empty else (str(dated.min()), str(dated.max())),
            undated=len(rows) - len(dated),
            sizes=(extent[0], extent[1]) if extent else None,
            formats=tuple(sorted((rows["mode"] + ", " + rows["bit_depth"].astype(str) + " bit").unique())),
            cameras=int(rows.loc[rows["camera"] != "", "camera"].nunique()),
            **origin,
        )


def card(
    line: str,
    metrics: Mapping[str, Any],
    calibration: Calibration,
    *,
    settings: LineSettings,
    training: Mapping[str, Any],
    weights: Mapping[str, str] | None,
    facts: CardFacts,
) -> str:
    """The card of a version, Markdown, about 2,000 to 5,000 characters.

    Args:
        line: The product line.
        metrics: Result of `decision.metrics.evaluate`, with `grounds` where sessions were examined.
        calibration: Of the detector.
        settings: Of the line.
        training: The settings that the detector was trained with, as it keeps them.
        weights: Where the weights that training began with come from, as the detector keeps it; None: random ones.
        facts: Of data and code.
    """
    sections = [
        _head(line, dict(metrics), calibration),
        _list("Guarantee", _guarantee(metrics, calibration)),
        _list("Measured on the holdout", _measured(metrics)),
        _list("Kinds of defect", _kinds(metrics)),
        _list("Blind spots", _blind_spots(metrics, settings, training, facts)),
        _list("Data", _data(facts)),
        _list("Licences", _licences(training, weights, facts)),
        _list("Origin", [*_origin(facts), *_settings(settings, training)]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(line: str, metrics: dict[str, Any], calibration: Calibration) -> str:
    found = verdict(metrics, calibration)
    said = [f"# Model card: {code(line)}", f"**{prose(found.sentence)}**"]
    if found.remedy:
        said.append(f"What to do: {prose(found.remedy)}")
    said += [f"**Warning.** {prose(warning)}" for warning in found.warnings]
    if region := region_sentences(metrics):
        said.append(f"**What is inspected.** {prose(' '.join(region))}")
    return "\n\n".join(said)


def _list(title: str, items: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {item}" for item in items)]) if items else ""


def _guarantee(metrics: Mapping[str, Any], calibration: Calibration) -> list[str]:
    text = calibration.guarantee
    said = [prose(f"{text[0].upper()}{text[1:]}.")]
    if calibration.attainable:
        said.append(
            "It holds as long as new good parts are like the calibration images: same product, camera and light. It "
            "says nothing about defects."
        )
    if "grounds" in metrics:
        said += [prose(sentence) for sentence in Grounds.from_json(metrics["grounds"]).sentences()]
    return said


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    good, defects = counted(metrics["n_good"], "good image"), counted(metrics["n_defect"], "defect image")
    said = [
        f"{good}, {defects}; none of them was used in training or calibration. Intervals are at "
        f"{exact_percent(metrics['confidence'])} confidence, exact for counts, and assume that images are independent."
    ]
    for name, title, happened, without in (
        ("overkill", "Overkill", "good images rejected", "good images"),
        ("escape", "Escapes", "defects missed", "defects"),
    ):
        rate = metrics[name]
        if rate is not None:
            said.append(f"{title}: {_rate(rate['count'], rate['n'], rate['low'], rate['high'], happened)}")
        elif metrics["threshold"] is None:
            said.append(f"{title}: not measured, because there is no threshold")
        else:
            said.append(f"{title}: not measured, because the holdout has no {without}")
    for name, title in (("image_auroc", "AUROC"), ("pixel_auroc", "Pixel AUROC"), ("aupro", "AUPRO")):
        if metrics[name] is not None:
            interval = metrics["intervals"].get(name)
            within = f" ({span(interval['low'], interval['high'])})" if interval else ""
            said.append(f"{title}: {percent(metrics[name])}{within}")
    return said


def _rate(count: int, n: int, low: float, high: float, happened: str) -> str:
    return f"{count:,} of {n:,} {happened}: {percent(count / n)} ({span(low, high)})"


def _kinds(metrics: Mapping[str, Any]) -> list[str]:
    """The kinds most missed first."""
    kinds = _worst_first(metrics["per_defect"])
    said = []
    for kind, found in kinds[:MOST_KINDS]:
        few = "; few images, so this says little" if found["n"] < MIN_KIND else ""
        if found["escapes"] is not None:
            rate = _rate(found["escapes"], found["n"], found["escape_low"], found["escape_high"], "missed")
            said.append(f"{code(kind)}: {rate}{few}")
        else:
            auroc = "" if found["auroc"] is None else f", AUROC {percent(found['auroc'])}"
            said.append(f"{code(kind)}: {counted(found['n'], 'image')}{auroc}{few}")
    rest = [found for _, found in kinds[MOST_KINDS:]]
    if rest:
        n = sum(found["n"] for found in rest)
        missed = sum(found["escapes"] or 0 for found in rest)
        what = f", of which {missed:,} {'was' if missed == 1 else 'were'} missed" if metrics["threshold"] else ""
        said.append(
            f"{counted(len(rest), 'further kind')} with {counted(n, 'image')} together{what}; all are listed in {_FULL}"
        )
    return said


def _worst_first(kinds: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(kinds.items(), key=lambda item: (-(item[1]["escape_rate"] or 0), item[1]["auroc"] or 0, item[0]))


def _blind_spots(
    metrics: Mapping[str, Any], settings: LineSettings, training: Mapping[str, Any], facts: CardFacts
) -> list[str]:
    kinds = metrics["per_defect"]
    said = []
    if not metrics["n_defect"]:
        said.append("There is no defect in the holdout: which defects it finds is not known.")
    if unseen := sorted(set(settings.validate_.defect_kinds) - facts.kinds - set(kinds)):
        said.append(f"Kinds of defect that the line knows, without a single image: {_names(unseen)}.")
    if untested := sorted(facts.kinds - set(kinds)):
        said.append(f"Kinds of defect that there are images of, but none in the holdout: {_names(untested)}.")
    if mostly := [kind for kind, found in _worst_first(kinds) if (found["escape_rate"] or 0) > 0.5]:
        said.append(f"Kinds of defect that are missed more often than found: {_names(mostly)}.")
    if few := [kind for kind, found in kinds.items() if found["n"] < MIN_KIND]:
        said.append(f"Kinds of defect with fewer than {MIN_KIND} images: {_names(few)}.")
    if kinds:
        said.append("Kinds of defect that are not named here were not tested.")
        if not metrics["n_masks"]:
            said.append("No defect has a mask: whether heatmaps show the right place was not measured.")
        elif metrics["n_masks"] < metrics["n_defect"]:
            said.append(
                f"{metrics['n_masks']:,} of {counted(metrics['n_defect'], 'defect image')} have a mask"
                f"{' with something in the region' if 'region' in metrics else ''}; pixel figures are of these."
            )
    return said + _untested_images(settings, training, facts, metrics.get("region"))


def _untested_images(
    settings: LineSettings, training: Mapping[str, Any], facts: CardFacts, region: Mapping[str, Any] | None
) -> list[str]:
    said = []
    ingest = settings.ingest
    if facts.sizes is not None:
        small, large = facts.sizes
        sizes = _size(small) if small == large else f"{_size(small)} to {_size(large)}"
        formats = "; ".join(facts.formats[:4]) + ("; and others" if len(facts.formats) > 4 else "")
        said.append(f"Images: {sizes} px (height x width), {formats}. Other sizes and formats were not tested.")
    if "image_size" in training and facts.sizes is not None:
        said += _scale(training, facts.sizes[1], region)
    if any(not form.endswith(" 8 bit") for form in facts.formats):
        said.append(f"16-bit values from {ingest.white_level:,} on are white: differences above it are not seen.")
    said.append(f"Images of more than {ingest.max_megapixels:g} megapixels are refused.")
    return said


def _scale(training: Mapping[str, Any], largest: tuple[int, int], region: Mapping[str, Any] | None) -> list[str]:
    """How many pixels of the largest image, or of the region, a pixel stands for that the network sees."""
    of, what = "the largest image", "image"
    if region is not None:
        largest, of, what = region["box"], "it", f"image's region of {_size(region['box'])} px"

    def factor(size: Sequence[int]) -> float:
        return max(largest[0] / size[0], largest[1] / size[1])

    whole, tiled = training["image_size"], (training.get("resolution") or {}).get("tiled_size")
    if tiled is not None:
        return [
            f"Every {what} is seen whole at {_size(whole)} px, and in tiles at {_size(tiled)} px: a pixel there stands "
            f"for up to {max(1.0, factor(tiled)):.1f} pixels in a row of {of}."
        ]
    if factor(whole) <= 1:
        return []
    return [
        f"Every {what} is resized to {_size(whole)} px: a pixel there stands for up to {factor(whole):.1f} pixels in a "
        f"row of {of}."
    ]


def _names(kinds: Sequence[str]) -> str:
    rest = len(kinds) - _MOST_NAMES
    return ", ".join(code(kind) for kind in kinds[:_MOST_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")


def _size(size: Sequence[int]) -> str:
    return f"{size[0]:,} x {size[1]:,}"


def _data(facts: CardFacts) -> list[str]:
    said = []
    for role, name in _ROLES.items():
        if by_label := facts.counts.get(role):
            said.append(f"{name}: {by_label.get('good', 0):,} good, {by_label.get('defect', 0):,} defect")
    if facts.acquired is not None:
        first, last = (code(moment[:10]) for moment in facts.acquired)
        unknown = f"; the time of {counted(facts.undated, 'image')} is not known" if facts.undated else ""
        said.append(f"Taken from {first} to {last}{unknown}. Later images were not tested.")
    else:
        said.append("When the images were taken is not known.")
    said.append(
        f"From {counted(facts.cameras, 'camera')}." if facts.cameras else "Which camera took them is not known."
    )
    if facts.data_version:
        said.append(f"Data version: {code(facts.data_version)}")
    said.append(f"Data hash: {code(facts.data_hash, 64)}")
    said.append(f"Holdout: {code(facts.holdout_id, 64)}")
    return said


def _licences(training: Mapping[str, Any], weights: Mapping[str, str] | None, facts: CardFacts) -> list[str]:
    images = code(facts.licence, 300) if facts.licence else "not known (`ingest.licence` is empty)"
    backbone = code(str(training.get("backbone", "unknown")))
    if weights is None:
        started = f"{backbone} with random weights, trained on the images of the line alone"
    else:
        giver = f"of the package {weights['package']}" if weights["package"] else "given by the user"
        unknown = "not stated (`train.weights_licence` is empty)"
        licence = code(weights["licence"], 300) if weights["licence"] else unknown
        started = (
            f"{backbone} from the file {code(weights['file'], 120)} {giver}, SHA-256 {code(weights['sha256'], 64)}; "
            f"licence: {licence}"
        )
    return [f"Images: {images}", f"Weights that training began with: {started}", "morphad: Apache-2.0"]


def _origin(facts: CardFacts) -> list[str]:
    unknown = "not known"
    return [
        f"Code revision: {code(facts.code_revision) if facts.code_revision else unknown}",
        f"morphad: {code(facts.morphad) if facts.morphad else unknown}",
        f"Container image: {code(facts.image_digest, 100) if facts.image_digest else unknown}",
    ]


def _settings(settings: LineSettings, training: Mapping[str, Any]) -> list[str]:
    """Those that change what the model does."""
    shown: dict[str, Any] = {
        f"train.{key}": training[key] for key in ("backbone", "image_size", "colour") if key in training
    }
    score = training.get("score", {})
    shown |= {f"train.score.{key}": score[key] for key in ("kind", "layers", "densities") if key in score}
    shown |= {
        "split.by": settings.split.by,
        "calibrate.false_reject_rate": settings.calibrate.false_reject_rate,
        "promote.max_escape": settings.promote.max_escape,
        "promote.max_overkill": settings.promote.max_overkill,
        "promote.mode": settings.promote.mode,
    }
    return [f"Settings: {', '.join(f'`{key}` {code(_value(value), 80)}' for key, value in shown.items())}"]


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _extremes(area: "pd.Series[int]") -> list[int]:
    return [] if area.empty else [int(area.argmin()), int(area.argmax())]
