"""Step `register`: the detector becomes the line's challenger."""

import os
from pathlib import Path

import pandas as pd

from morphad import __version__
from morphad.base.errors import BadInputError
from morphad.base.files import read_json, write_json
from morphad.data.feedback import as_ingested
from morphad.data.manifest import manifest_id, read_manifest
from morphad.data.source.finding import licence
from morphad.data.versions import current_version
from morphad.decision.calibration import Calibration
from morphad.model.saved import saved_calibration
from morphad.registry import DatasetFacts, Registry, code_revision, detector_hash
from morphad.report.card import CardFacts, card
from morphad.settings import LineSettings
from morphad.steps.common import Figures, frozen_holdout
from morphad.steps.paths import LinePaths


def register(
    settings: LineSettings, paths: LinePaths, seed: int = 0, *, reason: str = "manual", actor: str = "unknown"
) -> Figures:
    """Record the run in MLflow and register the detector as the line's challenger.

    Args:
        settings: All of the line's; they are recorded as parameters of the run.
        paths: Where its files are.
        seed: As for every step.
        reason: Why it was trained: "scheduled", "manual", "drift" with what drifted; a tag of run and version.
        actor: Who registers it: by four eyes, somebody else approves it.

    The container image is on record where MORPHAD_IMAGE_DIGEST names it: an image cannot know its own digest.

    Raises:
        BadInputError: The figures are of another detector or another holdout.
        ServiceError: MLflow did not answer; nothing is lost, the same call sends it later.
    """
    rows = read_manifest(paths.split)
    figures = read_json(paths.report / "metrics.json")
    frozen, registered = frozen_holdout(paths.holdout), detector_hash(paths.detector)
    if (figures.get("detector_hash"), figures.get("holdout_id")) != (registered, frozen.id):
        raise BadInputError(
            f"{paths.report / 'metrics.json'}: its figures are of another detector or holdout than "
            f"{paths.detector} and {paths.holdout}; run `morphad evaluate {paths.line}`, then `morphad register "
            f"{paths.line}`"
        )
    version = current_version(paths.version, as_ingested(rows))
    tags = {"morphad.reason": reason, **({} if version is None else {"morphad.data_version": version.tag})}
    if digest := os.environ.get("MORPHAD_IMAGE_DIGEST", "").strip():
        tags["image_digest"] = digest
    registry = Registry(settings.register_)
    published = registry.publish(
        paths.line,
        paths.detector,
        paths.report,
        params=settings.model_dump(mode="json", by_alias=True),
        metrics=_headline(figures, saved_calibration(paths.detector)),
        tags=tags,
        dataset=DatasetFacts(
            manifest=paths.split,
            data_hash=manifest_id(rows),
            holdout_id=frozen.id,
            counts={str(role): int(count) for role, count in rows["role"].value_counts().items()},
            holdout_labels=frozen.labels_id,
            holdout=paths.holdout,
        ),
        card=_card(paths.line, settings, rows=rows, figures=figures, detector=paths.detector, tags=tags),
        actor=actor,
    )
    facts = {
        "run_id": published.run_id,
        "model_name": published.model_name,
        "version": published.version,
        "model_uri": published.model_uri,
        "detector_hash": registered,
        "registry": registry.uri,
    }
    write_json(paths.registration, facts)
    return {**facts, "created": published.created}


def _card(
    line: str, settings: LineSettings, *, rows: pd.DataFrame, figures: Figures, detector: Path, tags: dict[str, str]
) -> str:
    """The model card of a detector that is about to be registered with these tags."""
    facts = CardFacts.of(
        rows,
        data_hash=manifest_id(rows),
        holdout_id=str(figures["holdout_id"]),
        data_version=tags.get("morphad.data_version", ""),
        licence=licence(settings.ingest),
        morphad=__version__,
        code_revision=code_revision(),
        image_digest=tags.get("image_digest", ""),
    )
    saved = read_json(detector / "detector.json")
    return card(
        line,
        figures,
        saved_calibration(detector),
        settings=settings,
        training=saved["settings"],
        weights=saved["weights"],
        facts=facts,
    )


def _headline(figures: Figures, calibration: Calibration) -> dict[str, float]:
    """The figures that people compare versions by, for MLflow's tables; all others are in report/metrics.json.

    A figure that was not measured, such as AUPRO without masks, is left out.
    """
    found = {
        "auroc": figures["image_auroc"],
        "auroc_low": (figures["intervals"].get("image_auroc") or {}).get("low"),
        **{
            f"{name}{suffix}": (figures[name] or {}).get(key)
            for name in ("overkill", "escape")
            for suffix, key in (("", "rate"), ("_high", "high"))
        },
        "guaranteed_overkill": calibration.false_reject_rate if calibration.attainable else None,
        "aupro": figures["aupro"],
        "n": figures["n_good"] + figures["n_defect"],
    }
    return {name: float(value) for name, value in found.items() if value is not None}
