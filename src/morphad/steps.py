"""One function a pipeline step: paths and settings in, paths written, figures out.

The local pipeline, the command line and cluster components all call these; nothing passes between steps but files.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from morphad import __version__
from morphad.base.errors import BadInputError, CheckFailedError
from morphad.base.files import read_json, remove_leftovers, write_json, write_text
from morphad.base.progress import Display
from morphad.base.spool import MapSpool
from morphad.base.text import harmless_cell
from morphad.data.feedback import Feedback, join_verdicts, read_verdicts
from morphad.data.images import SUFFIXES, decode
from morphad.data.index import open_memory
from morphad.data.loading import read_mask, read_masks, read_pixels
from morphad.data.manifest import empty_manifest, manifest_id, read_manifest, write_manifest
from morphad.data.snapshot.copying import refresh
from morphad.data.source.finding import find_images, licence
from morphad.data.source.layouts import files_below, is_image
from morphad.data.source.worklist import open_files
from morphad.settings import (
    CalibrateSettings,
    IngestSettings,
    LineSettings,
    PromoteSettings,
    RegisterSettings,
    SplitSettings,
    TrainSettings,
    ValidateSettings,
)

# What takes seconds to import is imported by the steps that need it.
if TYPE_CHECKING:
    from morphad.data.split.holdout import FrozenHoldout
    from morphad.decision.calibration import Calibration
    from morphad.inspection import Answer, Model
    from morphad.model.detector import Detector
    from morphad.report.pictures import Example
    from morphad.report.verdict import Verdict

Figures = dict[str, Any]


def ingest(
    line: str,
    settings: IngestSettings,
    *,
    snapshot_dir: Path,
    manifest: Path,
    rejects: Path,
    memory: Path,
    feedback: Path | None = None,
) -> Figures:
    """Bring a line's snapshot and manifest up to date with its source; what did not change is not read again.

    Args:
        line: The line's name.
        settings: Where its images come from.
        snapshot_dir: Folder of the images, whole or not there.
        manifest: One row an image, parquet.
        rejects: What was left out, JSON.
        memory: Folder of what is remembered between runs; it may be lost, at the price of one full run.
        feedback: What became of operators' verdicts, JSON.

    Raises:
        BadInputError: No images, more unreadable ones than the settings bear, verdicts that cannot be read, or another
            ingest of the line at work.
        ServiceError: A bucket's server refused or did not answer.
    """
    verdicts = read_verdicts(settings.verdicts) if settings.verdicts else []
    with open_memory(memory, line) as remembered:
        for path in (snapshot_dir, manifest, rejects):
            remove_leftovers(path)
        found = find_images(settings, remembered)
        rows, left_out = refresh(found, snapshot_dir, settings, line, memory=remembered)
        joined = Feedback()
        if settings.verdicts:
            rows, joined = join_verdicts(rows, verdicts)
        write_manifest(rows, manifest)
        write_json(rejects, [{"name": reject.name, "reason": reject.reason} for reject in left_out])
        if feedback is not None:
            write_json(feedback, joined.to_json())
        changes = remembered.changes
    return {
        **_label_counts(rows),
        "rejects": len(left_out),
        "new": len(changes.new),
        "changed": len(changes.changed),
        "gone": len(changes.gone),
        "verdicts": joined.images,
        "remarks": joined.remarks(),
        "data_hash": manifest_id(rows),
        "licence": licence(settings),
    }


def validate(
    line: str,
    settings: ValidateSettings,
    images: IngestSettings,
    *,
    manifest: Path,
    snapshot_dir: Path,
    reference: Path,
    validation: Path,
    page: Path,
    data_docs: Path | None = None,
) -> Figures:
    """Hold the manifest against the data contract; write the findings and the page that shows them.

    Without a reference (no file, or one without rows: no champion yet) nothing is compared with a champion's data.

    Raises:
        CheckFailedError: A finding is an error; each is named. Findings and page are written all the same.
    """
    from morphad.data.contract import check_manifest
    from morphad.report.contract_page import write_contract_page

    rows = read_manifest(manifest)
    known = read_manifest(reference) if reference.exists() else None
    result = check_manifest(rows, settings, line, reference=known, data_docs=data_docs)

    def pixels(path: str) -> NDArray[np.uint8]:
        file = snapshot_dir / path
        return decode(file, images.decoding).pixels

    write_json(validation, result.to_json())
    write_contract_page(page, result, rows, known, pixels=pixels)
    if result.errors:
        listed = "\n".join(f"  {finding.name}: {finding.sentence}" for finding in result.errors)
        raise CheckFailedError(f"{line}: the data breaks its contract:\n{listed}\nsee {page}")
    return {"warnings": [f"{finding.name}: {finding.sentence}" for finding in result.warnings]}


def split(settings: SplitSettings, seed: int, *, manifest: Path, split: Path, holdout: Path) -> Figures:
    """Give every image its role; the holdout, once frozen, stays as it is.

    Raises:
        CheckFailedError: An image of the frozen holdout is gone, or copies contradict each other.
        BadInputError: Too few good images for three roles.
    """
    from morphad.data.split.roles import split_manifest
    from morphad.data.split.sessions import session_facts

    frozen = _frozen(holdout) if holdout.exists() and not settings.renew_holdout else None
    rows, frozen = split_manifest(read_manifest(manifest), settings, seed, frozen)
    write_manifest(rows, split)
    write_json(holdout, frozen.to_json())
    pending = rows[rows["pending"] != ""] if "pending" in rows else rows.iloc[:0]
    remarks = [f"{row.path} is of the frozen holdout: {row.pending}" for row in pending.itertuples()]
    return {
        "holdout_id": frozen.id,
        **{str(role): int(count) for role, count in rows["role"].value_counts().items()},
        "warnings": [*remarks, *session_facts(rows, settings.by).warnings()],
    }


def train(
    line: str,
    settings: TrainSettings,
    images: IngestSettings,
    seed: int,
    *,
    split: Path,
    snapshot_dir: Path,
    fitted: Path,
    checkpoint: Path,
    gpus: int = 0,
) -> Figures:
    """Fit a detector on the training images; a killed run resumes from its checkpoint.

    Args:
        line: The line's name.
        settings: Of the training.
        images: How the images were ingested.
        seed: Of the training.
        split: The manifest with roles.
        snapshot_dir: Folder of the images.
        fitted: Folder for the detector without a threshold.
        checkpoint: File for the state of a training under way.
        gpus: How many GPUs were asked for on behalf of this step: more than one means so many processes, and if none
            of them works, the figures hold a warning.

    Raises:
        BadInputError: Too few training images, settings that do not fit network, device or its memory; nothing is
            read where the device is not there.
    """
    from morphad.model.detector import Detector
    from morphad.model.training.placing import place_training

    unfitted = Detector(settings, seed, place_training(settings, gpus), images.decoding)
    rows = _with_role(split, "train")
    pixels = read_pixels(rows, snapshot_dir, unfitted.decoding, f"reading {line}")
    detector = unfitted.fit(pixels, checkpoint=checkpoint, progress=Display(line))
    detector.save(fitted)
    checkpoint.unlink(missing_ok=True)
    begun = detector.training_.resumed_from if detector.training_ else 0
    return {**_training_facts(detector), "resumed_from": begun}


def calibrate(
    line: str,
    settings: CalibrateSettings,
    images: IngestSettings,
    *,
    split: Path,
    snapshot_dir: Path,
    fitted: Path,
    detector: Path,
) -> Figures:
    """Set the threshold from calibration images that training never saw, and save the whole detector.

    Too few images are no error here: the detector then has no threshold and says how many it needs.

    Raises:
        BadInputError: The images would be decoded otherwise now than those that the detector was trained on.
    """
    from morphad.model.detector import Detector

    rows = _with_role(split, "calibration")
    model = Detector.load(fitted)
    _check_decoding(line, model, rows, images)
    model.calibrate(read_pixels(rows, snapshot_dir, model.decoding, f"calibrating {line}"), settings)
    model.save(detector)
    return model.calibration_.to_json() if model.calibration_ else {}


def evaluate(
    line: str,
    settings: LineSettings,
    seed: int,
    *,
    split: Path,
    snapshot_dir: Path,
    rejects: Path,
    holdout: Path,
    detector: Path,
    report: Path,
) -> Figures:
    """Measure the detector on the frozen holdout and write figures, curves, predictions and the page.

    Raises:
        BadInputError: The detector has no calibration, or was trained on images that were decoded otherwise than now.
    """
    from morphad.data.split.holdout import frozen_rows
    from morphad.data.split.sessions import session_facts
    from morphad.decision import metrics as measures
    from morphad.model.detector import Detector
    from morphad.model.saved import detector_hash
    from morphad.report.page import DataFacts, PageData, write_page
    from morphad.report.pictures import write_contact_sheet

    frozen = _frozen(holdout)
    everyone = read_manifest(split)
    rows = frozen_rows(everyone, frozen, split, line)
    model = Detector.load(detector)
    if model.calibration_ is None or model.heatmap_scale_ is None:
        raise BadInputError(f"{detector}: has no calibration; run `morphad calibrate {line}` first")
    _check_decoding(line, model, rows, settings.ingest)
    with MapSpool() as maps:
        pixels = read_pixels(rows, snapshot_dir, model.decoding, f"evaluating {line}")
        scored = _score_holdout(model, rows, pixels, maps)
        figures = measures.evaluate(
            scored["label"],
            scored["score"],
            settings=settings.evaluate,
            threshold=model.calibration_.threshold,
            kinds=scored["defect"].tolist(),
            masks=read_masks(rows, snapshot_dir, model.decoding.max_megapixels),
            maps=maps,
            seed=seed,
        )
    roc = measures.roc_points(scored["label"], scored["score"])
    histogram = measures.histogram_rows(scored["label"], scored["score"])
    scores_by_path = scored.set_index("path")["score"]
    grounds = session_facts(everyone, settings.split.by, np.asarray(model.calibration_.scores), scores_by_path)
    figures["grounds"] = grounds.to_json()
    figures["pending_verdicts"] = int((everyone["pending"] != "").sum()) if "pending" in everyone else 0
    figures["detector_hash"] = detector_hash(detector)
    figures["holdout_id"] = frozen.id
    page = PageData(
        line=line,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        metrics=figures,
        roc=roc,
        histogram=histogram,
        calibration=model.calibration_,
        heatmap_scale=model.heatmap_scale_,
        examples=_examples(model, rows, scored, snapshot_dir),
        data=DataFacts(
            data_hash=manifest_id(everyone),
            holdout_id=frozen.id,
            counts=_role_counts(everyone),
            licence=licence(settings.ingest),
            rejects=[(reject["name"], reject["reason"]) for reject in read_json(rejects)],
        ),
        training=_training_facts(model),
        settings=settings.model_dump(mode="json", by_alias=True),
        code_version=__version__,
    )
    write_json(report / "metrics.json", figures)
    write_json(report / "roc.json", roc)
    write_json(report / "histogram.json", histogram)
    _write_predictions(scored, report / "predictions.csv")
    write_contact_sheet(report / "examples.png", page.examples, page.heatmap_scale)
    write_page(report, page)
    return figures


def register(
    line: str,
    settings: LineSettings,
    *,
    split: Path,
    holdout: Path,
    detector: Path,
    report: Path,
    registration: Path,
    reason: str = "manual",
    data_version: Path | None = None,
    actor: str = "unknown",
) -> Figures:
    """Record the run in MLflow and register the detector as the line's challenger.

    Args:
        line: The line's name.
        settings: All of the line's.
        split: The manifest with roles.
        holdout: The frozen holdout.
        detector: The detector with its threshold.
        report: Folder of figures and page.
        registration: For run, model and version, JSON.
        reason: Why it was trained: "scheduled", "manual", "drift" with what drifted; a tag of run and version.
        data_version: Which version of the data registry the snapshot is, JSON; need not exist. A tag of run and
            version where the split was made from that very version.
        actor: Who registers it: by four eyes, somebody else approves it.

    The container image is on record where MORPHAD_IMAGE_DIGEST names it: an image cannot know its own digest.

    Raises:
        BadInputError: The figures are of another detector or another holdout.
        ServiceError: MLflow did not answer; nothing is lost, the same call sends it later.
    """
    from morphad.data.feedback import as_ingested
    from morphad.data.versions import current_version
    from morphad.registry import DatasetFacts, Registry, detector_hash

    rows = read_manifest(split)
    figures = read_json(report / "metrics.json")
    frozen, registered = _frozen(holdout), detector_hash(detector)
    if (figures.get("detector_hash"), figures.get("holdout_id")) != (registered, frozen.id):
        raise BadInputError(
            f"{report / 'metrics.json'}: its figures are of another detector or holdout than {detector} and "
            f"{holdout}; run `morphad evaluate {line}`, then `morphad register {line}`"
        )
    version = current_version(data_version, as_ingested(rows)) if data_version is not None else None
    tags = {"morphad.reason": reason, **({} if version is None else {"morphad.data_version": version.tag})}
    if digest := os.environ.get("MORPHAD_IMAGE_DIGEST", "").strip():
        tags["image_digest"] = digest
    registry = Registry(settings.register_)
    published = registry.publish(
        line,
        detector,
        report,
        params=settings.model_dump(mode="json", by_alias=True),
        metrics=_plain_metrics(figures),
        tags=tags,
        dataset=DatasetFacts(
            manifest=split,
            data_hash=manifest_id(rows),
            holdout_id=frozen.id,
            counts={str(role): int(count) for role, count in rows["role"].value_counts().items()},
            holdout_labels=frozen.labels_id,
            holdout=holdout,
        ),
        card=_card(line, settings, rows=rows, figures=figures, detector=detector, tags=tags),
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
    write_json(registration, facts)
    return {**facts, "created": published.created}


def promote(
    line: str,
    register_settings: RegisterSettings,
    settings: PromoteSettings,
    images: IngestSettings,
    seed: int,
    *,
    split: Path,
    snapshot_dir: Path,
    holdout: Path,
    detector: Path,
    registration: Path,
    decision: Path,
    reference: Path,
    actor: str,
) -> Figures:
    """Hold the challenger against the champion, both scored now on the same frozen holdout, and act on it.

    Both are the registry's versions, with their own code and their own rules of decoding. The data of a version that
    becomes champion become the reference of the data contract.

    Returns:
        The decision: outcome (promoted, proposed, refused), promote (what the gate says), reasons, figures, version. A
        refusal is recorded and returned, not raised.

    Raises:
        BadInputError: Registration, detector, split and holdout do not belong together.
        CheckFailedError: The line's records and MLflow's aliases differ, or somebody else decided in the meantime.
        ServiceError: MLflow did not answer.
    """
    from morphad.data.split.holdout import frozen_rows
    from morphad.judging import judge, registered_version
    from morphad.registry import Registry

    registry = Registry(register_settings)
    version = registered_version(registry, line, registration, detector)
    frozen = _frozen(holdout)
    rows = frozen_rows(read_manifest(split), frozen, split, line)
    record = judge(
        registry, line, version, settings, seed, rows=rows, snapshot_dir=snapshot_dir, holdout=frozen, actor=actor
    )
    _settle(record, decision, split, reference)
    return record


def follow_champion(line: str, settings: RegisterSettings, *, reference: Path) -> str | None:
    """Make the champion's data the reference of the data contract, whoever made it champion.

    Returns:
        What could not be done, in a sentence; None where the reference is right.

    Raises:
        ServiceError: MLflow did not answer.
    """
    from morphad.registry import Registry

    registry = Registry(settings)
    champion = registry.champion(line)
    known = read_manifest(reference) if reference.exists() else None
    if champion is None:
        if known is None or len(known):
            _write_empty(reference)
        return None
    if known is not None and len(known) and manifest_id(known) == champion.data_hash:
        return None
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        manifest = registry.download_data(champion, Path(scratch) / "data")
        if manifest is None:
            _write_empty(reference)
            return (
                f"version {champion.number} was registered without its data, so new images are compared with no "
                "champion's until the next promotion"
            )
        write_manifest(read_manifest(manifest), reference)
    return None


def find_to_predict(places: Sequence[Path], heatmaps: Path | None = None) -> list[tuple[Path, Path | None]]:
    """The image files among files and folders, in order, each with the file for its heatmap.

    Args:
        places: Files, taken for images, and folders, of which the image files at any depth are taken.
        heatmaps: Folder for NAME.png of each file; heatmaps of a folder's files lie in it as those do in theirs.

    Raises:
        BadInputError: A folder holds no images, or two images would have the same heatmap.
    """
    found: list[tuple[Path, Path]] = []
    for place in places:
        if not place.is_dir():
            found.append((place, Path(f"{place.stem}.png")))
            continue
        names = [name for name in files_below(place) if is_image(name)]
        if not names:
            raise BadInputError(f"{place}: a folder without images; expected {', '.join(sorted(SUFFIXES))}")
        found += [(place / name, Path(name).with_suffix(".png")) for name in names]
    if heatmaps is None:
        return [(file, None) for file, _ in found]
    if twice := [name for name, count in Counter(name for _, name in found).items() if count > 1]:
        raise BadInputError(
            f"{heatmaps / twice[0]}: several images would have this heatmap; predict them into different folders"
        )
    return [(file, heatmaps / name) for file, name in found]


def predict(
    model: "Model", images: Sequence[tuple[Path, Path | None]], settings: IngestSettings
) -> "Iterator[tuple[Path, Answer]]":
    """Score image files, in order; an image that cannot be read is no error: its answer says why.

    Args:
        model: Who scores.
        images: What `find_to_predict` found; heatmaps are written as PNG, on the line's fixed scale.
        settings: How large a file may be.

    Raises:
        BadInputError: A heatmap cannot be written.
        ServiceError: The model's process ended.
    """
    from morphad.inspection import answered
    from morphad.report.pictures import write_heatmap

    opened = open_files([file for file, _ in images], settings.max_megabytes)
    answers = answered(model, opened, heatmaps=any(drawn for _, drawn in images))
    for (file, drawn), (image, answer) in zip(images, answers, strict=True):
        if drawn is not None and answer.heatmap is not None and image.data is not None:
            write_heatmap(drawn, decode(image.data, model.decoding).pixels, answer.heatmap, (0.0, 1.0))
        yield file, answer


def verdict_of(report: Path, detector: Path) -> "Verdict":
    """The sentence at the head of a line's page."""
    from morphad.report.verdict import verdict

    calibration, metrics = _calibration(detector), report / "metrics.json"
    try:
        return verdict(read_json(metrics), calibration)
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{metrics}: not as morphad writes it; run `morphad evaluate` again") from error


def _card(
    line: str, settings: LineSettings, *, rows: pd.DataFrame, figures: Figures, detector: Path, tags: dict[str, str]
) -> str:
    """The model card of a detector that is about to be registered with these tags."""
    from morphad.registry import code_revision
    from morphad.report.card import CardFacts, card

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
    training = read_json(detector / "detector.json").get("settings", {})
    return card(line, figures, _calibration(detector), settings=settings, training=training, facts=facts)


def _calibration(detector: Path) -> "Calibration":
    """The calibration of a saved detector, without loading it."""
    from morphad.decision.calibration import Calibration

    description = detector / "detector.json"
    try:
        return Calibration.from_json(read_json(description)["calibration"])
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{description}: has no calibration; run `morphad calibrate` again") from error


def _settle(record: Figures, decision: Path, split: Path, reference: Path) -> None:
    """Write the decision, and before it what follows from it: killed between them, the same call comes here again."""
    if record["outcome"] == "promoted":
        write_manifest(read_manifest(split), reference)
    elif not reference.exists():
        _write_empty(reference)  # an output of the stage in dvc.yaml: it is always there
    write_json(decision, record)


def _write_empty(reference: Path) -> None:
    """No champion's data are known."""
    write_manifest(empty_manifest(), reference)


def _frozen(holdout: Path) -> "FrozenHoldout":
    from morphad.data.split.holdout import FrozenHoldout

    return FrozenHoldout.from_json(read_json(holdout), str(holdout))


def _training_facts(model: "Detector") -> Figures:
    """How the training went, without its step-by-step history."""
    training = model.training_
    if training is None:
        return {}
    left_out = {"history", "resumed_from"}
    facts = {key: value for key, value in asdict(training).items() if key not in left_out and value is not None}
    if not training.history:
        return facts
    return {"cases": len(model.table), "final_loss": training.history[-1]["loss"], **facts}


def _with_role(split: Path, role: str) -> pd.DataFrame:
    rows = read_manifest(split)
    if "role" not in rows:
        raise BadInputError(f"{split}: has no column `role`; run `morphad split` first")
    chosen = rows[rows["role"] == role].reset_index(drop=True)
    if chosen.empty:
        raise BadInputError(f"{split}: no image has the role {role}; add good images to the line and split again")
    return chosen


def _check_decoding(line: str, model: "Detector", rows: pd.DataFrame, images: IngestSettings) -> None:
    """Refuse to go on with a detector where today's settings make other pixels of the images.

    Its own decoding would do, but then a setting that somebody has just changed would be without effect, and stand in
    the record of a run that it is not true of.
    """
    own, today = model.decoding.white_level, images.white_level
    if own != today and (rows["bit_depth"] == 16).any():  # in other images there is nothing that it would change
        raise BadInputError(
            f"{line}: the detector was trained with ingest.white_level {own}, settings now say {today}, and there are "
            f"16-bit images; run `morphad train {line}` again, or set it back"
        )


def _score_holdout(
    model: "Detector", rows: pd.DataFrame, pixels: Iterator[NDArray[np.uint8]], maps: MapSpool
) -> pd.DataFrame:
    """Rows of path, label, defect, score, rejected, p_value; heatmaps go to `maps`."""
    predictions = []
    for prediction in model.predict(pixels):
        maps.append(prediction.heatmap)
        predictions.append((prediction.score, prediction.rejected, prediction.p_value))
    scored = pd.DataFrame(predictions, columns=["score", "rejected", "p_value"])
    return pd.concat([rows[["path", "label", "defect"]], scored], axis=1)


def _examples(model: "Detector", rows: pd.DataFrame, scored: pd.DataFrame, snapshot_dir: Path) -> "list[Example]":
    """The images that the page shows, predicted once more: they are few."""
    from morphad.report.page import Example, example_indices

    chosen = rows.iloc[example_indices(scored["label"], scored["score"])]
    pixels = list(read_pixels(chosen, snapshot_dir, model.decoding, "drawing examples"))
    return [
        Example(
            image=image,
            heatmap=prediction.heatmap,
            mask=read_mask(snapshot_dir / str(row.mask)) if row.mask else None,
            name=str(row.path),
            label=str(row.label),
            defect=str(row.defect),
            score=prediction.score,
            p_value=prediction.p_value,
            rejected=prediction.rejected,
        )
        for row, image, prediction in zip(chosen.itertuples(), pixels, model.predict(iter(pixels)), strict=True)
    ]


def _write_predictions(scored: pd.DataFrame, path: Path) -> None:
    texts = {name: scored[name].map(harmless_cell) for name in ("path", "label", "defect")}
    write_text(path, scored.assign(**texts).to_csv(index=False))


def _label_counts(rows: pd.DataFrame) -> dict[str, int]:
    return {"good": int((rows["label"] == "good").sum()), "defect": int((rows["label"] == "defect").sum())}


def _role_counts(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(role): _label_counts(group) for role, group in rows.groupby("role")}


def _plain_metrics(figures: Figures) -> dict[str, float]:
    """The figures that are numbers, nested names joined by dots: what MLflow can plot."""
    plain: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            plain |= {f"{key}.{name}": number for name, number in _plain_metrics(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            plain[key] = float(value)
    return plain
