"""Step `evaluate`: what the detector is worth on the frozen holdout, and the page that says so."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad import __version__
from morphad.base.errors import BadInputError
from morphad.base.files import read_json, write_json, write_text
from morphad.base.spool import MapSpool
from morphad.base.text import harmless_cell
from morphad.data.loading import read_mask, read_masks, read_pixels
from morphad.data.manifest import manifest_id, read_manifest
from morphad.data.pictures import Pictures
from morphad.data.source.finding import licence
from morphad.data.split.holdout import frozen_rows
from morphad.data.split.sessions import session_facts
from morphad.decision import metrics as measures
from morphad.model.detector import Detector
from morphad.model.records import Prediction
from morphad.model.region import Region
from morphad.model.saved import detector_hash
from morphad.model.sight import Sight
from morphad.report.page import DataFacts, Example, PageData, example_indices, write_page
from morphad.report.pictures import write_contact_sheet
from morphad.settings import LineSettings
from morphad.steps.common import Figures, check_decoding, check_size, frozen_holdout, label_counts, training_facts
from morphad.steps.paths import LinePaths
from morphad.steps.reads import read_by

_VERDICT = ("score", "rejected", "p_value", "reason")


def evaluate(settings: LineSettings, paths: LinePaths, seed: int) -> Figures:
    """Measure the detector on the frozen holdout and write figures, curves, predictions and the page.

    Raises:
        BadInputError: The detector has no calibration, or was trained on images that were decoded otherwise than now.
    """
    frozen = frozen_holdout(paths.holdout)
    everyone = read_manifest(paths.split)
    rows = frozen_rows(everyone, frozen, paths.split, paths.line)
    model = Detector.load(paths.detector)
    if model.calibration_ is None or model.heatmap_scale_ is None:
        raise BadInputError(f"{paths.detector}: has no calibration; run `morphad calibrate {paths.line}` first")
    check_decoding(paths.line, model, rows, settings.ingest)
    check_size(paths.line, model.refusal, rows)
    with MapSpool() as maps, MapSpool() as insides:
        pixels = read_pixels(rows, paths.pictures, model.decoding, f"evaluating {paths.line}")
        moved = model.settings.align != "none"
        scored = _score_holdout(model, rows, pixels, maps, insides if moved else None)
        whole = None if model.region is None else model.region.inside
        figures = measures.evaluate(
            scored["label"],
            scored["score"],
            settings=settings.evaluate,
            threshold=model.calibration_.threshold,
            kinds=scored["defect"].tolist(),
            masks=read_masks(rows, paths.pictures, model.decoding.max_megapixels),
            maps=maps,
            inspected=(inside > 0 for inside in insides) if moved else whole,
            seed=seed,
        )

        def predicted(place: int) -> Prediction:
            score, rejected, p_value, reason = (scored[name].tolist()[place] for name in _VERDICT)
            inside = insides[place] > 0 if moved else whole
            return Prediction(score, maps[place], rejected, p_value, reason, inside)

        examples = _examples(model, rows, scored, predicted, paths.pictures)
    roc = measures.roc_points(scored["label"], scored["score"])
    histogram = measures.histogram_rows(scored["label"], scored["score"])
    scores_by_path = scored.set_index("path")["score"]
    grounds = session_facts(everyone, settings.split.by, np.asarray(model.calibration_.scores), scores_by_path)
    figures["grounds"] = grounds.to_json()
    figures["pending_verdicts"] = int((everyone["pending"] != "").sum()) if "pending" in everyone else 0
    if model.region is not None:
        figures["region"] = _region_facts(model.region, rows, figures["n_masks"])
    if moved:
        unseen = scored["reason"] != ""
        figures["align"] = {
            "kind": model.settings.align,
            "lost": {label: int((unseen & (scored["label"] == label)).sum()) for label in ("good", "defect")},
        }
    figures["detector_hash"] = detector_hash(paths.detector)
    figures["holdout_id"] = frozen.id
    page = PageData(
        line=paths.line,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        metrics=figures,
        roc=roc,
        histogram=histogram,
        calibration=model.calibration_,
        heatmap_scale=model.heatmap_scale_,
        examples=examples,
        data=DataFacts(
            data_hash=manifest_id(everyone),
            holdout_id=frozen.id,
            counts=_role_counts(everyone),
            licence=licence(settings.ingest),
            rejects=[(reject["name"], reject["reason"]) for reject in read_json(paths.rejects)],
        ),
        training=training_facts(model),
        settings=read_by("evaluate", settings, seed),
        code_version=__version__,
        sight=Sight.of(model.settings, _sizes(everyone)),
    )
    write_json(paths.report / "metrics.json", figures)
    write_json(paths.report / "roc.json", roc)
    write_json(paths.report / "histogram.json", histogram)
    _write_predictions(scored, paths.report / "predictions.csv")
    write_contact_sheet(paths.report / "examples.png", page.examples, page.heatmap_scale)
    write_page(paths.report, page)
    return figures


def _score_holdout(
    model: Detector,
    rows: pd.DataFrame,
    pixels: Iterator[NDArray[np.uint8]],
    maps: MapSpool,
    insides: MapSpool | None,
) -> pd.DataFrame:
    """Rows of path, label, defect, score, rejected, p_value, reason.

    Heatmaps go to `maps`; what is inspected goes to `insides`, where it is not the same in every image.
    """
    predictions = []
    for prediction in model.predict(pixels):
        maps.append(prediction.heatmap)
        if insides is not None:
            inside = prediction.inspected
            everywhere = np.ones(prediction.heatmap.shape, np.float32)
            insides.append(everywhere if inside is None else inside.astype(np.float32))
        predictions.append((prediction.score, prediction.rejected, prediction.p_value, prediction.reason))
    scored = pd.DataFrame(predictions, columns=list(_VERDICT))
    return pd.concat([rows[["path", "label", "defect"]], scored], axis=1)


def _region_facts(region: Region, rows: pd.DataFrame, n_masks: int) -> dict[str, Any]:
    """Share inspected, size of the box around it, and how many masks mark nothing in it."""
    masks = int(((rows["label"] == "defect") & (rows["mask"] != "")).sum())
    return {"inspected": region.share, "box": list(region.box_size), "masks_outside": masks - n_masks}


def _examples(
    model: Detector,
    rows: pd.DataFrame,
    scored: pd.DataFrame,
    predicted: Callable[[int], Prediction],
    pictures: Pictures,
) -> list[Example]:
    """The images that the page shows, which are few, with what was predicted of each row."""
    chosen = example_indices(scored["label"], scored["score"])
    shown = rows.iloc[chosen]
    pixels = read_pixels(shown, pictures, model.decoding, "drawing examples")
    return [
        Example.of(
            image,
            predicted(place),
            name=str(row.path),
            label=str(row.label),
            defect=str(row.defect),
            mask=read_mask(pictures.read_mask(str(row.mask), str(row.mask_sha256))) if row.mask else None,
        )
        for place, row, image in zip(chosen, shown.itertuples(), pixels, strict=True)
    ]


def _sizes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Of the pictures that the detector was trained on."""
    trained = rows[(rows["role"] == "train") & (rows["label"] == "good")]
    return list(zip(trained["height"].tolist(), trained["width"].tolist(), strict=True))


def _write_predictions(scored: pd.DataFrame, path: Path) -> None:
    if not (scored["reason"] != "").any():
        scored = scored.drop(columns="reason")
    texts = {name: scored[name].map(harmless_cell) for name in ("path", "label", "defect")}
    write_text(path, scored.assign(**texts).to_csv(index=False))


def _role_counts(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(role): label_counts(group) for role, group in rows.groupby("role")}
