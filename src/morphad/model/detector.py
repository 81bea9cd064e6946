"""Decoding, preprocessing, network, scorer and threshold of one line as one object and one folder."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as torch_functional

from morphad import __version__
from morphad.base.errors import BadInputError
from morphad.base.files import atomic_directory, cannot_write, read_json, sha256_file, sha256_json
from morphad.base.progress import Progress, silent
from morphad.decision.attainable import tightest_rate
from morphad.decision.calibration import Calibration, calibrate
from morphad.model.backbone import Backbone
from morphad.model.cost import Cost, measured_cost
from morphad.model.device import Placement, scoring_device, within_gpu_memory
from morphad.model.morphology import case_table, parse_case
from morphad.model.network import MorphologyNetwork
from morphad.model.prepare import inspected, prepare
from morphad.model.records import Prediction, TrainingResult
from morphad.model.region import Region, region_of
from morphad.model.resolution import resolved
from morphad.model.saved import DESCRIPTION
from morphad.model.scorers import make_scorers
from morphad.model.scoring.base import BATCH, Scored, Scorer
from morphad.model.scoring.patches import DensityScorer
from morphad.model.scoring.tiles import TileScorer, most_abnormal
from morphad.model.weights import WeightsOrigin
from morphad.settings import CalibrateSettings, Decoding, TrainSettings

FORMAT_VERSION = 10
_NETWORK, _SCORER = "network.safetensors", "scorer.safetensors"
_OWN_HASH = "own_sha256"  # of detector.json without this key
_TILES = "tiles."  # what the names of the tiles' tensors start with
_AT_ONCE = 8_000_000  # pixels of pictures that are scored together, unless one has more
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
        self._scorer, self._tiles = self._scorers()
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
                Where pictures are seen in tiles, too, they are read three times: a list then, or another iterable that
                begins anew, and no iterator.
            sizes: Their heights and widths, px, which say in what shape the network sees images where the settings do
                not; none: that of the first image says it.
            checkpoint: Where training keeps its state to resume from; left in place.
            progress: Called as the work goes on: stages "training", "fitting scores" and "fitting tiles".

        Raises:
            BadInputError: Too few images, or a setting that does not fit the network.
        """
        from morphad.model.training.fit import train_network  # noqa: PLC0415 -- who only scores does not train

        stream = iter(images)
        first = next(stream, None)
        if first is None:
            raise BadInputError("no good images to train on; add images to the line")
        self.settings = resolved(self._asked, sizes or [first.shape[:2]])
        network = MorphologyNetwork(self.settings, self.table, self.seed)
        self.weights_ = network.backbone.origin
        self._settle_layers(network.backbone)
        network.backbone.check_size(*self._size)
        self._scorer, self._tiles = self._scorers()
        if self._tiles and stream is images:
            raise ValueError("images in tiles are read more than once; give a list of them, not an iterator")
        good = torch.stack([prepare(image, self.settings, self._size)[0] for image in chain([first], stream)])
        self._scorer.check_count(len(good))  # before minutes of training
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
            if self._tiles:
                self._tiles.fit(
                    network,
                    lambda: (prepare(image, self.settings, self._tiled_size)[0] for image in images),
                    _counted(progress, "fitting tiles", len(good)),
                )
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

    def cost(self, sizes: Iterable[tuple[int, int]]) -> Cost:
        """What a picture will take on this machine, measured on noise before any training.

        Args:
            sizes: As in `fit`.
        """
        return measured_cost(resolved(self._asked, sizes), self.table, self.seed, self._placement)

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
            tiles = {} if self._tiles is None else {_TILES + key: value for key, value in self._tiles.state().items()}
            states = ((_NETWORK, network.state_dict()), (_SCORER, self._scorer.state() | tiles))
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
        # Copied, for where a tensor lies in memory decides about the last digit of its products.
        tensors = {k: tensor.clone() for k, tensor in load_file(folder / _SCORER, device=str(detector.device)).items()}
        of_tiles = {key: tensors.pop(key) for key in list(tensors) if key.startswith(_TILES)}
        detector._scorer.load_state(tensors)
        if detector._tiles:
            detector._tiles.load_state({key.removeprefix(_TILES): value for key, value in of_tiles.items()})
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
        sizes = [self._size, self._tiled_size] if self._tiles else [self._size]
        at_once = max(1, min(BATCH, _AT_ONCE // (sizes[-1][0] * sizes[-1][1])))

        def sized(image: NDArray[np.uint8]) -> tuple[tuple[int, int], list[Tensor]]:
            prepared = prepare(image, self.settings, *sizes)
            return (image.shape[0], image.shape[1]) if region is None else region.box_size, prepared

        stream = map(sized, images)
        while batch := list(islice(stream, at_once)):
            with within_gpu_memory("scoring images"), torch.inference_mode():
                whole = torch.stack([prepared[0] for _, prepared in batch]).to(self.device)
                scored = self._scorer.score(network, whole)
                if self._tiles:
                    found = [self._tiles.score(network, prepared[1]) for _, prepared in batch]
                    # The settings allow tiles beside densities alone.
                    scored = most_abnormal(cast(DensityScorer, self._scorer).relative(scored), found)
            yield [size for size, _ in batch], scored

    def _inspected(self, maps: Tensor) -> Tensor:
        """Values [..., P] of the inspected places of maps [..., H, W]."""
        values, inside = maps.flatten(-2), inspected(self.settings, (maps.shape[-2], maps.shape[-1]))
        return values if inside is None else values[..., inside.flatten().to(maps.device)]

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width, px, in which the network sees whole pictures."""
        assert self.settings.image_size is not None  # noqa: S101 -- since it was fitted
        return self.settings.image_size

    @property
    def _tiled_size(self) -> tuple[int, int]:
        """Height and width, px, of pictures that are cut into tiles."""
        assert self.settings.resolution.tiled_size is not None  # noqa: S101 -- where there are tiles
        return self.settings.resolution.tiled_size

    def _scorers(self) -> tuple[Scorer, TileScorer | None]:
        return make_scorers(self.settings, self.table, self.seed, self._placement)

    def _fitted(self) -> MorphologyNetwork:
        if self._network is None:
            raise BadInputError("this detector is not fitted; call fit or load first")
        return self._network


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


def _without_folders(settings: TrainSettings) -> TrainSettings:
    """Settings in which a weights file is a name: the saved detector holds its weights and needs no file."""
    given = settings.weights in {"packaged", "none"}
    return settings if given else settings.model_copy(update={"weights": Path(settings.weights).name})


def _told(training: TrainingResult) -> dict[str, Any]:
    """How a training went, without what an interruption changes: a detector that was resumed is the same detector."""
    return {key: value for key, value in asdict(training).items() if key != "resumed_from"}
