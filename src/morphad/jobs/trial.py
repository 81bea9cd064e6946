"""`morphad try`: a folder of pictures, and nothing else, to a first detector and the page that shows what it finds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.base.files import check_writable
from morphad.base.progress import Display
from morphad.data.images import UnreadableImageError, decode
from morphad.data.loading import Repeatable
from morphad.data.snapshot.copying import look
from morphad.data.source.finding import find_images
from morphad.data.split.roles import split_manifest
from morphad.decision.calibration import Calibration
from morphad.jobs.predict import find_to_predict
from morphad.model.detector import Detector
from morphad.model.sight import Sight
from morphad.report.pictures import Example
from morphad.report.trial_page import TrialPage, next_command, write_trial_page
from morphad.settings import CalibrateSettings, IngestSettings, SplitSettings
from morphad.settings.presets import merge, train_settings
from morphad.steps.common import label_counts

ODD, SHOWN = 6, 36  # pictures on the page: odd good ones, and of each other group
_DEFAULT: Mapping[str, Any] = MappingProxyType({})
_STEPS = 30  # of training, where a line has 100: somebody waits, and most of the quality is there without any
_LEAST = 13  # good pictures: ten to learn from, three for a threshold that means something


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        good: Good pictures in the folder.
        calibration: What they allow.
        sight: How large they are seen.
        verdicts: Of the pictures that were asked about.
        unreadable: Name and reason of each picture that could not be read.
        unanswered: How many of them were asked about.
    """

    good: int
    calibration: Calibration
    sight: Sight
    verdicts: tuple[Example, ...]
    unreadable: tuple[tuple[str, str], ...]
    unanswered: int


def try_folder(
    folder: Path, also: Sequence[Path], page: Path, *, seed: int = 0, train: Mapping[str, Any] = _DEFAULT
) -> Trial:
    """Learn from the good pictures of a folder, and write a page.

    Nothing is kept but the page: no project, no registry.

    Args:
        folder: Good pictures, or an MVTec AD layout, of which `train/good` is learned from.
        also: Picture files and folders to give verdicts on.
        page: The page, HTML.
        seed: Of everything random.
        train: Settings of the training that are not the trial's, which are the default's but for fewer steps.

    Raises:
        BadInputError: Too few good pictures, none at all, a smallest defect larger than they are, or the page cannot be
            written.
    """
    check_writable(page)
    ingest = IngestSettings(path=str(folder), max_rejects=1_000_000)
    asked = [file for file, _ in find_to_predict(also)] if also else []
    found = find_images(ingest)
    sources = {image.name: image.file for image in found}
    rows, rejects = look(found, ingest, "trial")
    unreadable = [(reject.name, reject.reason) for reject in rejects]
    good = label_counts(rows)["good"]
    if good < _LEAST:
        raise BadInputError(f"{folder}: {good} good pictures that can be read; a trial needs at least {_LEAST}")
    split = SplitSettings()
    rows, _ = split_manifest(rows, split, seed, None)
    kept = rows[(rows["role"] == "calibration") & (rows["label"] == "good")]
    learned = rows[rows["role"].isin(["train", "holdout"]) & (rows["label"] == "good")]
    defects = rows[rows["label"] == "defect"]

    def pixels(names: Iterable[str]) -> Iterator[NDArray[np.uint8]]:
        return (decode(sources[name], ingest.decoding).pixels for name in names)

    settings = train_settings(merge({"optimiser": {"steps": _STEPS}}, train))
    sizes = list(zip(learned["height"].tolist(), learned["width"].tolist(), strict=True))
    sight = Sight.of(settings, sizes)
    detector = Detector(settings, seed, decoding=ingest.decoding)
    with Display(folder.name) as progress:
        detector.fit(
            Repeatable(lambda: pixels(learned["path"])), sizes=sizes, names=learned["path"].tolist(), progress=progress
        )
    unreadable += [(name, "part not found; not learned from") for name in detector.lost_]
    detector.calibrate(pixels(kept["path"]), CalibrateSettings(false_reject_rate="attainable"))
    calibration, scale = detector.calibration_, detector.heatmap_scale_
    assert calibration is not None and scale is not None  # noqa: S101 -- calibrated just above

    def examples(items: Iterable[tuple[str, Path, str, str]]) -> list[Example]:
        return list(_examples(detector, items, ingest, unreadable))

    odd = examples((str(row.path), sources[str(row.path)], "good", "") for row in kept.itertuples())
    known = examples((str(row.path), sources[str(row.path)], "defect", str(row.defect)) for row in defects.itertuples())
    others = examples((str(file), file, "", "") for file in asked)
    write_trial_page(
        page,
        TrialPage(
            folder=str(folder),
            created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            good=good,
            share=split.calibration,
            calibration=calibration,
            heatmap_scale=scale,
            sight=sight,
            next_command=next_command(folder.resolve(), train),
            odd=sorted(odd, key=lambda example: -example.score)[:ODD],
            defects=sorted(known, key=lambda example: example.score)[:SHOWN],
            others=sorted(others, key=lambda example: -example.score)[:SHOWN],
            unreadable=unreadable,
        ),
    )
    return Trial(good, calibration, sight, tuple(others), tuple(unreadable), len(asked) - len(others))


def _examples(
    detector: Detector,
    items: Iterable[tuple[str, Path, str, str]],
    ingest: IngestSettings,
    unreadable: list[tuple[str, str]],
) -> Iterator[Example]:
    """Pictures with what the detector says of each; one that cannot be read is noted."""
    for name, file, label, defect in items:
        try:
            image = decode(file, ingest.decoding).pixels
        except UnreadableImageError as error:
            unreadable.append((name, error.reason))
            continue
        if reason := detector.refusal(*image.shape[:2]):
            unreadable.append((name, reason))
            continue
        [prediction] = detector.predict([image])
        yield Example.of(image, prediction, name=name, label=label, defect=defect)
