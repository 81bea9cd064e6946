"""Decoding, preprocessing, network, scorer and threshold of one line as one object and one folder."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as torch_functional
from torchvision.transforms.v2 import functional as transforms

from morphad import __version__
from morphad.base.errors import BadInputError
from morphad.base.files import atomic_directory, cannot_write, read_json, sha256_file, sha256_json
from morphad.base.progress import Progress, silent
from morphad.decision.attainable import tightest_rate
from morphad.decision.calibration import Calibration, calibrate
from morphad.model.backbone import Backbone
from morphad.model.device import Placement, scoring_device, within_gpu_memory
from morphad.model.morphology import Case, case_table, parse_case
from morphad.model.network import MorphologyNetwork
from morphad.model.records import Prediction, TrainingResult
from morphad.model.region import Region, region_of
from morphad.model.resolution import input_size
from morphad.model.saved import DESCRIPTION
from morphad.model.scoring.base import BATCH, Scored, Scorer, shrunk_mask
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.transformation import TransformationScorer
from morphad.model.weights import WeightsOrigin
from morphad.settings import CalibrateSettings, Decoding, ScoreSettings, TrainSettings

FORMAT_VERSION = 10
_NETWORK, _SCORER = "network.safetensors", "scorer.safetensors"
_OWN_HASH = "own_sha256"  # of detector.json without this key
_STRIP = 32  # rows that are turned to grey at a time; larger blocks stay with the allocator
_PRECISIONS = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


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
        self.settings = settings
        self.seed = seed
        self.decoding = decoding or Decoding()
        self.table = case_table(settings.cases)
        self._placement = placement or _place(settings)
        self.device = self._placement.device
        self.training_: TrainingResult | None = None
        self.weights_: WeightsOrigin | None = None
        self.calibration_: Calibration | None = None
        self.heatmap_scale_: tuple[float, float] | None = None
        self._inside = _inside(settings)
        self._scorer = self._make_scorer()
        self._network: MorphologyNetwork | None = None

    def fit(
        self,
        images: Iterable[NDArray[np.uint8]],
        *,
        sizes: Iterable[tuple[int, int]] = (),
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Train the network on transformed good images, then learn what good images are to it.

        Args:
            images: Good images, uint8 [H, W] or [H, W, 3], of any size, or of the region's; kept resized in memory.
            sizes: Their heights and widths, px, which say in what shape the network sees images where the settings do
                not; none: that of the first image says it.
            checkpoint: Where training keeps its state to resume from; left in place.
            progress: Called as the work goes on: stages "training" and "fitting scores".

        Raises:
            BadInputError: Too few images, or a setting that does not fit the network.
        """
        from morphad.model.training.fit import train_network  # noqa: PLC0415 -- who only scores does not train

        stream = iter(images)
        first = next(stream, None)
        if first is None:
            raise BadInputError("no good images to train on; add images to the line")
        size = input_size(self.settings, sizes or [first.shape[:2]])
        self.settings = self.settings.model_copy(update={"image_size": size})
        self._inside = _inside(self.settings)
        network = MorphologyNetwork(self.settings, self.table, self.seed)
        self.weights_ = network.backbone.origin
        self._settle_layers(network.backbone)
        network.backbone.check_size(*size)
        prepared = [prepare(image, self.settings) for image in chain([first], stream)]
        self._scorer = self._make_scorer()
        self._scorer.check_count(len(prepared))  # before minutes of training
        good = torch.stack(prepared)
        self.training_ = train_network(
            network, good, self.settings, self.table, self.seed, checkpoint, self._placement, progress
        )
        self._network = network.eval()
        remedy = "lower train.image_size, train.score.channels or train.score.memory"
        with (
            within_gpu_memory(f"fitting scores to {len(good)} images", remedy),
            torch.inference_mode(),
        ):
            self._scorer.fit(network, good.to(self.device), _counted(progress, "fitting scores", len(good)))
        self.calibration_ = self.heatmap_scale_ = None
        return self

    def _settle_layers(self, backbone: Backbone) -> None:
        """Write into the settings which layers are scored, and see that the network has them."""
        score = self.settings.score
        if not score.layers:
            score = score.model_copy(update={"layers": backbone.scored_layers})
            self.settings = self.settings.model_copy(update={"score": score})
        if score.kind == "density":
            backbone.check_layers(score.layers)

    def calibrate(self, images: Iterable[NDArray[np.uint8]], settings: CalibrateSettings) -> Self:
        """Set the threshold and the heatmap scale from good images that `fit` has not seen.

        The middle of the heatmap scale is the threshold, its foot the mean map value of good images.

        Raises:
            BadInputError: No images.
        """
        scores, means = [], []
        for _, scored in self._scored(images):
            scores.append(scored.scores)
            means.append(self._inspected(scored.maps).mean(1))
        if not scores:
            raise BadInputError("no good images to calibrate on; add images to the line")
        values = torch.cat(scores).cpu().numpy()
        asked = settings.false_reject_rate
        rate = tightest_rate(len(values)) if isinstance(asked, str) else asked
        self.calibration_ = calibrate(values, rate, settings.confidence)
        foot = float(torch.cat(means).mean())
        middle = self.calibration_.threshold if self.calibration_.threshold is not None else float(values.max())
        if self.settings.score.kind == "transformation":
            middle = foot + 3.0  # its maps are z-scores, not in the unit of the image's score
        self.heatmap_scale_ = (foot, foot + 2 * max(middle - foot, 1e-6))
        return self

    def score_samples(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Scores [N], higher for more abnormal; an image's score does not depend on the others."""
        scores = [scored.scores.cpu().numpy() for _, scored in self._scored(images)]
        return np.concatenate(scores) if scores else np.empty(0)

    def predict(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[Prediction]:
        """Score, heatmap and verdict of each image, streamed in order.

        Where an image is not inspected its heatmap is as cold as it gets: the scale's foot, or its own coldest place.
        """
        region = self.region
        for sizes, scored in self._scored(images):
            values = scored.scores.cpu().numpy()
            verdicts = self.verdicts(values)
            for i, size in enumerate(sizes):
                full = torch_functional.interpolate(
                    scored.maps[i][None, None].float(), size=size, mode="bilinear", align_corners=False
                )
                heatmap = full[0, 0].cpu().numpy()
                if region is not None:
                    heatmap = region.put_back(heatmap, self.heatmap_scale_[0] if self.heatmap_scale_ else inf)
                yield Prediction(float(values[i]), heatmap, *verdicts[i])

    @property
    def region(self) -> Region | None:
        """What of an image is inspected; None: all of it."""
        return None if self.settings.region is None else region_of(self.settings.region)

    def refusal(self, image: NDArray[np.uint8]) -> str:
        """Why an image is not for this detector, without its name; "" for one that is."""
        return "" if self.region is None else self.region.refusal(*image.shape[:2])

    def verdicts(self, scores: NDArray[np.float64]) -> list[tuple[bool | None, float | None]]:
        """Whether an image is rejected, and its p-value, for each score [N]; None for a score that is no number."""
        known = np.flatnonzero(np.isfinite(scores))
        verdicts: list[tuple[bool | None, float | None]] = [(None, None)] * len(scores)
        if self.calibration_ is None:
            return verdicts
        rejected, p_values = self.calibration_.rejected(scores[known]), self.calibration_.p_values(scores[known])
        for i, place in enumerate(known):
            verdicts[place] = (None if rejected is None else bool(rejected[i]), float(p_values[i]))
        return verdicts

    def save(self, folder: Path, *, weights_of: Path | None = None) -> None:
        """Write the detector as a folder of safetensors and JSON, whole or not at all.

        Args:
            folder: The detector's.
            weights_of: Folder of this detector as it was saved before: its weights are left out here, and named by
                their hashes. `model.saved.whole_detector` puts the two together.

        Raises:
            BadInputError: The folder cannot be written.
        """
        network = self._fitted()
        with atomic_directory(folder) as temporary:
            states = ((_NETWORK, network.state_dict()), (_SCORER, self._scorer.state()))
            for name, state in states if weights_of is None else ():
                try:
                    save_file({key: tensor.contiguous().cpu() for key, tensor in state.items()}, temporary / name)
                except SafetensorError as error:  # how safetensors reports a full disk
                    raise cannot_write(folder / name, OSError(str(error))) from error
            description = {
                "format_version": FORMAT_VERSION,
                "morphad": __version__,
                "settings": _without_folders(self.settings).model_dump(mode="json"),
                "decoding": self.decoding.model_dump(mode="json"),
                "seed": self.seed,
                "precision": _PRECISIONS[self._placement.dtype],
                "cases": [case.name for case in self.table],
                "weights": asdict(self.weights_) if self.weights_ else None,
                "training": _told(self.training_) if self.training_ else None,
                "calibration": self.calibration_.to_json() if self.calibration_ else None,
                "heatmap_scale": self.heatmap_scale_,
                "sha256": {name: sha256_file((weights_of or temporary) / name) for name in (_NETWORK, _SCORER)},
            }
            description = json.loads(json.dumps(description, allow_nan=False))
            text = json.dumps({**description, _OWN_HASH: sha256_json(description)}, indent=2, sort_keys=True)
            (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Detector":
        """Read a folder that `save` wrote, checking format version and hashes.

        Raises:
            BadInputError: The folder is missing, damaged, changed, or of another format version.
        """
        description = read_json(folder / DESCRIPTION)
        if not isinstance(description, dict) or description.get("format_version") != FORMAT_VERSION:
            found = description.get("format_version") if isinstance(description, dict) else None
            raise BadInputError(
                f"{folder / DESCRIPTION}: format version {found!r}, this morphad reads {FORMAT_VERSION}; "
                "use the morphad that wrote it or train again"
            )
        try:
            if description.pop(_OWN_HASH, None) != sha256_json(description):
                raise BadInputError(f"{folder / DESCRIPTION}: not the file that was saved; fetch or train it again")
            return Detector._restored(folder, description)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
            raise BadInputError(f"{folder}: not a whole detector ({error}); fetch or train it again") from error

    @staticmethod
    def _restored(folder: Path, description: dict[str, Any]) -> "Detector":
        for name in (_NETWORK, _SCORER):
            path = folder / name
            if not path.is_file() or sha256_file(path) != description["sha256"][name]:
                raise BadInputError(f"{path}: missing or not the file that was saved; fetch or train the model again")
        settings = TrainSettings.model_validate(description["settings"])
        dtype = {name: dtype for dtype, name in _PRECISIONS.items()}[description["precision"]]
        placement = Placement(scoring_device(settings.device), 1, dtype, None)
        decoding = Decoding.model_validate(description["decoding"])
        detector = Detector(settings, description["seed"], placement, decoding)
        detector.table = tuple(parse_case(name) for name in description["cases"])
        network = MorphologyNetwork(detector.settings, detector.table, detector.seed, initialise=False)
        network.load_state_dict(load_file(folder / _NETWORK))
        detector._network = network.to(detector.device).eval()
        tensors = load_file(folder / _SCORER, device=str(detector.device))
        detector._scorer = detector._make_scorer()
        detector._scorer.load_state(tensors)
        if description["weights"] is not None:
            detector.weights_ = WeightsOrigin(**description["weights"])
        if description["training"] is not None:
            detector.training_ = TrainingResult(
                **{**description["training"], "history": tuple(description["training"]["history"])}
            )
        if description["calibration"] is not None:
            detector.calibration_ = Calibration.from_json(description["calibration"])
            low, high = description["heatmap_scale"]
            detector.heatmap_scale_ = (low, high)
        return detector

    def _scored(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[list[tuple[int, int]], Scored]]:
        """Height and width of some images, or of their region's box, and their scores.

        No image is kept once it is prepared.
        """
        network, region = self._fitted(), self.region

        def sized(image: NDArray[np.uint8]) -> tuple[tuple[int, int], Tensor]:
            prepared = prepare(image, self.settings)
            return (image.shape[0], image.shape[1]) if region is None else region.box_size, prepared

        stream = map(sized, images)
        while batch := list(islice(stream, BATCH)):
            with within_gpu_memory("scoring images"), torch.inference_mode():
                scored = self._scorer.score(network, torch.stack([prepared for _, prepared in batch]).to(self.device))
            yield [size for size, _ in batch], scored

    def _inspected(self, maps: Tensor) -> Tensor:
        """Values [..., P] of the inspected places of maps [..., H, W]."""
        values = maps.flatten(-2)
        return values if self._inside is None else values[..., self._inside.flatten().to(maps.device)]

    def _fitted(self) -> MorphologyNetwork:
        if self._network is None:
            raise BadInputError("this detector is not fitted; call fit or load first")
        return self._network

    def _make_scorer(self) -> Scorer:
        """A scorer in the precision that the detector was fitted in, whatever machine this is."""
        dtype = self._placement.dtype
        if dtype == torch.float16 and self.device.type == "cpu":
            dtype = None  # a CPU has no fast float16; float32 is the closest that it computes in
        return make_scorer(self.settings.score, self.table, self.seed, dtype, self._inside)


def prepare(image: NDArray[np.uint8], settings: TrainSettings) -> Tensor:
    """An image [H, W] or [H, W, 3] as the network needs it: uint8 [C, H, W] at its size, C = 3 or, for grey, 1.

    What is not inspected goes first, at full resolution: neither resizing nor anything else sees it.

    Raises:
        BadInputError: It is no such image, or not of the size that the region was drawn on.
    """
    if image.dtype != np.uint8 or not image.size or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise BadInputError(f"expected an image uint8 [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
    if settings.region is not None:
        region = region_of(settings.region)
        if reason := region.refusal(*image.shape[:2]):
            raise BadInputError(f"an image {reason}")
        image = region.cut(image)
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    if settings.colour == "grey" and tensor.shape[0] == 3:
        grey = tensor.new_empty((1, *tensor.shape[1:]))
        for top in range(0, tensor.shape[1], _STRIP):  # as the arithmetic is in float: four times the picture's bytes
            grey[:, top : top + _STRIP] = transforms.rgb_to_grayscale(tensor[:, top : top + _STRIP])
        tensor = grey
    size = input_size(settings, [(tensor.shape[1], tensor.shape[2])])
    resized: Tensor = transforms.resize(tensor, list(size), antialias=True)
    return resized.expand(1 if settings.colour == "grey" else 3, -1, -1).contiguous()


def _counted(progress: Progress, stage: str, total: int) -> Callable[[int], object]:
    """A callback that gets how many more items are done."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    return more


def _place(settings: TrainSettings) -> Placement:
    """Where the settings want the training."""
    from morphad.model.training.placing import place_training  # noqa: PLC0415 -- who only scores does not train

    return place_training(settings)


def _inside(settings: TrainSettings) -> Tensor | None:
    """bool [H, W] at the network's input size: which places show something that is inspected; None: all."""
    if settings.region is None:
        return None
    region = region_of(settings.region)
    return shrunk_mask(torch.from_numpy(region.inside[region.box].copy()), *input_size(settings, ()))


def make_scorer(
    settings: ScoreSettings,
    table: Sequence[Case],
    seed: int,
    dtype: torch.dtype | None,
    inside: Tensor | None = None,
) -> Scorer:
    """The scorer that the settings name, not yet fitted; `dtype` and `inside` as in `Scorer`."""
    if settings.kind == "transformation":
        return TransformationScorer(settings, table, dtype, inside)
    return DensityScorer(settings, seed, dtype, inside)


def _without_folders(settings: TrainSettings) -> TrainSettings:
    """Settings in which a weights file is a name: the saved detector holds its weights and needs no file."""
    given = settings.weights in {"packaged", "none"}
    return settings if given else settings.model_copy(update={"weights": Path(settings.weights).name})


def _told(training: TrainingResult) -> dict[str, Any]:
    """How a training went, without what an interruption changes: a detector that was resumed is the same detector."""
    return {key: value for key, value in asdict(training).items() if key != "resumed_from"}
