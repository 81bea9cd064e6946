"""Decoding, preprocessing, network, scorer and threshold of one line as one object and one folder."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from morphad.base.errors import BadInputError
from morphad.base.progress import Progress, counted, silent
from morphad.decision.attainable import tightest_rate
from morphad.decision.calibration import NOTHING_TO_SCORE, Calibration, calibrate
from morphad.model import storage
from morphad.model.cost import Cost, measured_cost
from morphad.model.device import Placement, scoring_device, within_gpu_memory
from morphad.model.framing import Framed, Framing, lost_among
from morphad.model.morphology import case_table
from morphad.model.network import MorphologyNetwork
from morphad.model.prepare import inspected_places
from morphad.model.records import Prediction, TrainingResult
from morphad.model.region import Region
from morphad.model.resolution import resolved
from morphad.model.scorers import scorer_of, with_layers
from morphad.model.scoring.base import BATCH, Closer, Scored, Scorer
from morphad.model.weights import WeightsOrigin
from morphad.settings import CalibrateSettings, Decoding, TrainSettings

_AT_ONCE = 8_000_000  # pixels of pictures that are scored together, unless one has more


class Detector:
    """An inspection model of one product line, learned from good images only.

    Args:
        settings: Network, self-supervised task and score.
        seed: Of everything random; two fits on one CPU with one seed are equal.
        placement: Where to train, and to score; None: where the settings say.
        decoding: How image files become the pixels that it is given; kept for all who will give it some.

    Attributes:
        decoding: As above.
        training_: How the self-supervised training went; None before `fit`.
        weights_: Where the weights that training began with come from; None before `fit`, and where they were random.
        calibration_: Scores of good calibration images and the threshold; None before `calibrate`.
        heatmap_scale_: Map values shown as lowest and highest colour, fixed for the line; None before `calibrate`.
        lost_: Training images whose part was not found, and which were left out; empty after `load`.

    Example:
        >>> import numpy as np
        >>> from morphad import Detector
        >>> from morphad.settings import CalibrateSettings
        >>> from morphad.settings.presets import train_settings
        >>> rng = np.random.default_rng(0)
        >>> good = [rng.integers(100, 140, (64, 64, 3), dtype=np.uint8) for _ in range(40)]
        >>> settings = train_settings({"image_size": [64, 64], "optimiser": {"steps": 2, "batch_size": 4}})
        >>> detector = Detector(settings).fit(good[:20]).calibrate(good[20:], CalibrateSettings(false_reject_rate=0.1))
        >>> part = good[0].copy()
        >>> part[20:44, 20:44] = 255  # a defect
        >>> [prediction] = detector.predict([part])
        >>> prediction.rejected, prediction.heatmap.shape
        (True, (64, 64))
    """

    def __init__(
        self,
        settings: TrainSettings,
        seed: int = 0,
        placement: Placement | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        self.settings = self._asked = settings
        self.seed = seed
        self.decoding = decoding or Decoding()
        self.table = case_table(settings.cases)
        self._placement = placement or _place(settings)
        self.device = self._placement.device
        self.training_: TrainingResult | None = None
        self.weights_: WeightsOrigin | None = None
        self.calibration_: Calibration | None = None
        self.heatmap_scale_: tuple[float, float] | None = None
        self.lost_: tuple[str, ...] = ()
        self._framing = Framing(settings, None)
        self._scorer = self._new_scorer()
        self._network: MorphologyNetwork | None = None

    def fit(
        self,
        images: Iterable[NDArray[np.uint8]],
        *,
        sizes: Iterable[tuple[int, int]] = (),
        names: Sequence[str] = (),
        anchor: NDArray[np.uint8] | None = None,
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Train the network on transformed good images, then learn what good images are to it.

        Args:
            images: Good images, uint8 [H, W] or [H, W, 3], of any size, or of the region's; kept resized in memory.
                Where pictures are seen in tiles, too, or parts are put in place, they are read more than once: a list
                then, or another iterable that begins anew, and no iterator.
            sizes: Their heights and widths, px, which say in what shape the network sees images where the settings do
                not; none: that of the first image says it.
            names: What they are called, for messages; none: by their number.
            anchor: A good image whose part lies where the region has it; None: parts are put where most have theirs.
            checkpoint: Where training keeps its state to resume from; left in place.
            progress: Called as the work goes on: stages "training", "fitting scores" and "fitting tiles".

        Raises:
            BadInputError: Too few images, a setting that does not fit the network, or the part is not found in more
                than a tenth of the images.
        """
        from morphad.model.training.fit import train_network  # noqa: PLC0415 -- who only scores does not train

        stream = iter(images)
        first = next(stream, None)
        if first is None:
            raise BadInputError("no good images to train on; add images to the line")
        asked = resolved(self._asked, sizes or [first.shape[:2]])
        network = MorphologyNetwork(asked, self.table, self.seed)
        self.weights_ = network.backbone.origin
        self.settings = with_layers(asked, network.backbone)
        network.backbone.check_size(*self._size)
        self._scorer = self._new_scorer()
        closer = self._scorer.closer
        if (closer or self.settings.align != "none") and stream is images:
            raise ValueError("images are read more than once here; give a list of them, not an iterator")
        self._framing = Framing.learned(self.settings, images, anchor)
        framed = [self._framing.framed(image, self._size) for image in chain([first], stream)]
        self.lost_ = lost_among(framed, names)
        good = torch.stack([one.shown.pop(0) for one in framed if not one.lost])
        self._scorer.check_count(len(good))  # before minutes of training
        self.training_ = train_network(
            network, good, self.settings, self.table, self.seed, checkpoint, self._placement, progress
        )
        self._network = network.eval()
        seen_closer = closer and Closer(
            len(good),
            lambda: (one.shown[0] for image in images if not (one := self._framing.framed(image, closer)).lost),
            counted(progress, "fitting tiles", len(good)),
        )
        remedy = "lower train.image_size, train.score.channels or train.score.memory"
        with within_gpu_memory(f"fitting scores to {len(good)} images", remedy), torch.inference_mode():
            report = counted(progress, "fitting scores", len(good))
            self._scorer.fit(network, good.to(self.device), report, seen_closer)
        self.calibration_ = self.heatmap_scale_ = None
        return self

    def calibrate(self, images: Iterable[NDArray[np.uint8]], settings: CalibrateSettings) -> Self:
        """Set the threshold and the heatmap scale from good images that `fit` has not seen.

        The middle of the heatmap scale is the threshold, its foot the mean map value of good images.

        Raises:
            BadInputError: No images.
        """
        scores, means = [], []
        for framed, scored in self._scored(images):
            scores.append(scored.scores)
            of_each = inspected_places(scored.maps, self.settings).mean(1)
            means += [mean for one, mean in zip(framed, of_each, strict=True) if not one.lost]
        if not scores:
            raise BadInputError("no good images to calibrate on; add images to the line")
        values = torch.cat(scores).cpu().numpy()
        asked = settings.false_reject_rate
        unseen = int((values == NOTHING_TO_SCORE).sum())
        rate = tightest_rate(len(values), unseen) if isinstance(asked, str) else asked
        self.calibration_ = calibration = calibrate(values, rate, settings.confidence).checked()
        foot = float(torch.stack(means).mean())
        highest = float(values[values < NOTHING_TO_SCORE].max())
        middle = highest if calibration.threshold is None else calibration.threshold
        if self.settings.score.kind == "transformation":
            middle = foot + 3.0  # its maps are z-scores, not in the unit of the image's score
        self.heatmap_scale_ = (foot, foot + 2 * max(middle - foot, 1e-6))
        return self

    def score_samples(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Scores [N], higher for more abnormal; an image's score does not depend on the others."""
        scores = [scored.scores.cpu().numpy() for _, scored in self._scored(images)]
        return np.concatenate(scores) if scores else np.empty(0)

    def predict(self, images: Iterable[NDArray[np.uint8]], *, heatmaps: bool = True) -> Iterator[Prediction]:
        """Score, heatmap and verdict of each image, streamed in order.

        Where an image is not inspected its heatmap is as cold as it gets: the scale's foot, or its own coldest place.
        An image whose part is not found is rejected unseen, with the reason, and its heatmap is cold.

        Args:
            images: uint8 [H, W] or [H, W, 3] each.
            heatmaps: Whether heatmaps are wanted; of a large image they need more time than all else.
        """
        foot = self.heatmap_scale_[0] if self.heatmap_scale_ else inf
        nothing = np.empty((0, 0), np.float32)
        for framed, scored in self._scored(images):
            values = scored.scores.cpu().numpy()
            verdicts = [(None, None)] * len(values) if self.calibration_ is None else self.calibration_.verdicts(values)
            for i, (one, (rejected, p_value)) in enumerate(zip(framed, verdicts, strict=True)):
                heatmap = one.heatmap(scored.maps[i], foot) if heatmaps else nothing
                inside = one.inspected if heatmaps else None
                yield Prediction(float(values[i]), heatmap, True if one.lost else rejected, p_value, one.lost, inside)

    def cost(self, sizes: Iterable[tuple[int, int]]) -> Cost:
        """What a picture will take on this machine, measured on noise before any training; `sizes` as in `fit`."""
        return measured_cost(resolved(self._asked, sizes), self.table, self.seed, self._placement)

    @property
    def region(self) -> Region | None:
        """What of an image is inspected; None: all of it."""
        return self._framing.region

    def refusal(self, height: int, width: int) -> str:
        """Why an image of this size is not for this detector, without its name; "" for one that is."""
        return self._framing.refusal(height, width)

    def save(self, folder: Path, *, weights_of: Path | None = None) -> None:
        """Write the detector as a folder of safetensors and JSON, whole or not at all.

        Args:
            folder: The detector's.
            weights_of: Folder of this detector as it was saved before: its weights are left out here, and named by
                their hashes. `model.saved.whole_detector` puts the two together.

        Raises:
            BadInputError: The folder cannot be written.
        """
        description = storage.Description(
            settings=self.settings,
            decoding=self.decoding,
            seed=self.seed,
            dtype=self._placement.dtype,
            table=self.table,
            weights=self.weights_,
            training=self.training_,
            calibration=self.calibration_,
            heatmap_scale=self.heatmap_scale_,
        )
        network, learned = self._fitted().state_dict(), self._scorer.state() | self._framing.state()
        storage.write(folder, description, {storage.NETWORK: network, storage.SCORER: learned}, weights_of)

    @staticmethod
    def load(folder: Path) -> "Detector":
        """Read a folder that `save` wrote, checking format version and hashes.

        Raises:
            BadInputError: The folder is missing, damaged, changed, or of another format version.
        """
        with storage.damage_named(folder):
            saved = storage.read(folder)
            placement = Placement(scoring_device(saved.settings.device), 1, saved.dtype, None)
            detector = Detector(saved.settings, saved.seed, placement, saved.decoding)
            detector.table = saved.table
            network = MorphologyNetwork(saved.settings, saved.table, saved.seed, initialise=False)
            network.load_state_dict(storage.tensors(folder, storage.NETWORK, torch.device("cpu")))
            detector._network = network.to(detector.device).eval()
            tensors = storage.tensors(folder, storage.SCORER, detector.device)
            detector._framing = Framing.restored(saved.settings, tensors)
            detector._scorer.load_state(tensors)
            detector.weights_, detector.training_ = saved.weights, saved.training
            detector.calibration_, detector.heatmap_scale_ = saved.calibration, saved.heatmap_scale
        return detector

    def _scored(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[list[Framed], Scored]]:
        """Some images as the network needs them, and their scores; no image is kept once it is prepared."""
        network = self._fitted()
        sizes = [self._size, *([self._scorer.closer] if self._scorer.closer else [])]
        at_once = max(1, min(BATCH, _AT_ONCE // (sizes[-1][0] * sizes[-1][1])))
        stream = (self._framing.framed(image, *sizes) for image in images)
        while batch := list(islice(stream, at_once)):
            with within_gpu_memory("scoring images"), torch.inference_mode():
                whole = torch.stack([one.shown[0] for one in batch]).to(self.device)
                scored = self._scorer.score(network, whole, [closer for one in batch for closer in one.shown[1:]])
                lost = torch.tensor([bool(one.lost) for one in batch], device=scored.scores.device)
                scored = replace(scored, scores=scored.scores.masked_fill(lost, NOTHING_TO_SCORE))
            yield batch, scored

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width, px, in which the network sees whole pictures."""
        assert self.settings.image_size is not None  # noqa: S101 -- since it was fitted
        return self.settings.image_size

    def _new_scorer(self) -> Scorer:
        return scorer_of(self.settings, self.table, self.seed, self._placement)

    def _fitted(self) -> MorphologyNetwork:
        if self._network is None:
            raise BadInputError("this detector is not fitted; call fit or load first")
        return self._network


def _place(settings: TrainSettings) -> Placement:
    """Where the settings want the training."""
    from morphad.model.training.placing import place_training  # noqa: PLC0415 -- who only scores does not train

    return place_training(settings)
