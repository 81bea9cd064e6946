"""morphad beside models of anomalib: the same images, the same weights, the same input size, one after the other.

    pip install -r benchmarks/peers.txt
    python -m benchmarks.peers FOLDER [FOLDER ...] [--models morphad,padim] [--seeds 0,1,2] --out FILE.json

A folder is a set in MVTec AD layout. Every model is fitted on train/good in a process of its own and scores test/. The
peers' settings are those that their authors give, the same for every set; nothing is chosen by a test label. The
table gives the mean over the seeds; FILE.json every run. A run that is in FILE.json already is not repeated.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from benchmarks.measuring import RESAMPLES, SQUARE, Row, how, measure_morphad, measure_sets
from benchmarks.results import by_set
from morphad.data.images import decode
from morphad.data.loading import in_order
from morphad.jobs.benchmark import figures, read_set
from morphad.model.weights import packaged_lite0, read_weights

BACKBONE = "tf_efficientnet_lite0"
SIZE = [224, 224]  # px, as morphad's default
BATCH = 16
AUTOENCODER_EPOCHS = 220  # passes over the training images; the loss has levelled off by then
TILED_CORESET = 2_500  # patches
STUDENT_STEPS = 400  # of 16 images; STFPM's loss has levelled off by then

Scores = tuple[Tensor, Tensor | None]  # [B] of images, [B, H, W] of places where the model has such a thing
Scorer = Callable[[Tensor], Scores]  # from images [B, 3, H, W] float32


def padim(images: Tensor, seed: int, tile: int | None = None) -> Scorer:
    """PaDiM (Defard et al., 2021): a Gaussian a position, 100 random channels; `tile` as in `tiled`."""
    from anomalib.models.image.padim.torch_model import PadimModel

    torch.manual_seed(seed)
    layers = ["blocks.1", "blocks.2", "blocks.4"]
    model = PadimModel(layers=layers, backbone=BACKBONE, pre_trained=False, n_features=100)
    tiled(model, tile)
    _load(model.feature_extractor.feature_extractor)
    _collect(model, images)
    model.fit()
    return _score_with(model)


def patchcore(images: Tensor, seed: int, tile: int | None = None) -> Scorer:
    """PatchCore (Roth et al., 2022): a coreset of 1 % of the patches, but 1,000 of them at least, 9 neighbours.

    The coreset is anomalib's greedy choice in its random projection, by one matrix product a pick: the same up to
    rounding, in a fraction of the time. With a `tile`, as in `tiled`, it has `TILED_CORESET` patches: 1 % of so many
    would be ten times as many.
    """
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    def choose(sampler: Any) -> list[int]:
        sampler.model.fit(sampler.embedding)
        return farthest_points(sampler.model.transform(sampler.embedding), sampler.coreset_size)

    KCenterGreedy.select_coreset_idxs = choose
    torch.manual_seed(seed)
    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone=BACKBONE, pre_trained=False, num_neighbors=9)
    tiled(model, tile)
    _load(model.feature_extractor.feature_extractor)
    _collect(model, images)
    patches = sum(len(rows) for rows in model.embedding_store)
    model.subsample_embedding(max(0.01, min(1.0, 1000 / patches)) if tile is None else TILED_CORESET / patches)
    return _score_with(model)


def tiled(model: Any, tile: int | None) -> None:
    """Let a model see images in anomalib's own tiles, squares of `tile` px side by side; None: whole."""
    from anomalib.data.utils.tiler import Tiler

    if tile is not None:
        model.tiler = Tiler(tile_size=tile, stride=tile)


def farthest_points(rows: Tensor, count: int) -> list[int]:
    """The greedy k-centre choice of `count` of the rows [N, D], from a random first one."""
    norms = rows.square().sum(1)
    gaps = torch.full_like(norms, torch.inf)
    chosen = [int(torch.randint(len(rows), (1,)))]
    while len(chosen) < count:
        last = chosen[-1]
        gaps = torch.minimum(gaps, norms + norms[last] - 2 * (rows @ rows[last]))
        gaps[last] = -torch.inf
        chosen.append(int(gaps.argmax()))
    return chosen


def dfm(images: Tensor, seed: int) -> Scorer:
    """DFM (Ahuja et al., 2019): what a principal component analysis of one layer's features cannot rebuild."""
    from anomalib.models.image.dfm.torch_model import DFMModel

    torch.manual_seed(seed)
    model = DFMModel(backbone=BACKBONE, layer="blocks.4", pre_trained=False)
    _load(model.feature_extractor.feature_extractor)
    _collect(model, images)
    model.fit()
    return _score_with(model)


def fre(images: Tensor, seed: int) -> Scorer:
    """FRE (Ndiour et al., 2022): what a shallow linear autoencoder of one layer's features cannot rebuild."""
    from anomalib.models.image.fre.torch_model import FREModel

    torch.manual_seed(seed)
    model = FREModel(BACKBONE, "blocks.4", input_dim=112 * 7 * 7, pre_trained=False, pooling_kernel_size=2)
    _load(model.feature_extractor.feature_extractor)
    with torch.no_grad():  # the backbone stays, so each image passes it once
        features = torch.cat([model.get_features(batch)[0] for batch in torch.split(images, BATCH)])
    optimiser = torch.optim.Adam(model.fre_model.parameters(), lr=1e-3)
    for _ in range(AUTOENCODER_EPOCHS):
        for batch in torch.split(features[torch.randperm(len(features))], 2 * BATCH):
            loss = functional.mse_loss(model.fre_model(batch), batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return _score_with(model)


def stfpm(images: Tensor, seed: int) -> Scorer:
    """STFPM (Wang et al., 2021): a student that learns the teacher's features on good images; in bfloat16."""
    from anomalib.models.image.stfpm import torch_model
    from anomalib.models.image.stfpm.loss import STFPMLoss

    torch.manual_seed(seed)
    extractor = torch_model.TimmFeatureExtractor
    # The model asks for weights from the network, always; here they come from the package.
    torch_model.TimmFeatureExtractor = lambda **options: extractor(**{**options, "pre_trained": False})
    model = torch_model.STFPMModel(layers=["blocks.1", "blocks.2", "blocks.4"], backbone=BACKBONE)
    torch_model.TimmFeatureExtractor = extractor
    _load(model.teacher_model.feature_extractor)
    loss = STFPMLoss()
    optimiser = torch.optim.SGD(model.student_model.parameters(), lr=0.4, momentum=0.9, weight_decay=0.001)
    model.train()
    model.teacher_model.eval()
    model = model.to(memory_format=torch.channels_last)
    for _ in range(STUDENT_STEPS):
        batch = images[torch.randint(len(images), (BATCH,))].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            teacher, student = model(batch)
        value = loss(*({name: found[name].float() for name in found} for found in (teacher, student)))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return _score_with(model)


def thumbnail(images: Tensor, seed: int) -> Scorer:
    """No model at all: 1 - the correlation with the most alike training image, at 24 x 24 px.

    Where this is good, copies of the good test images are in training, and figures of all models are too kind.
    """

    def small(given: Tensor) -> Tensor:
        rows = functional.adaptive_avg_pool2d(given.mean(1, keepdim=True), 24).flatten(1)
        return functional.normalize(rows - rows.mean(1, keepdim=True))

    good = small(images)
    return lambda given: (1 - (small(given) @ good.T).amax(1), None)


PEERS: dict[str, Callable[[Tensor, int], Scorer]] = {
    "padim": padim,
    "patchcore": patchcore,
    "dfm": dfm,
    "fre": fre,
    "stfpm": stfpm,
    "thumbnail": thumbnail,
}
OURS = {"morphad": "default", "morphad-fast": "fast"}
MODELS = (*OURS, *PEERS)


def run(name: str, folder: Path, seed: int) -> Row:
    """Fit one model on one set and score its test images; see `morphad.jobs.benchmark.figures`."""
    if name in OURS:
        return measure_morphad(folder, {"preset": OURS[name], "image_size": SQUARE}, seed)
    return measure_peer(PEERS[name], folder, seed)


def measure_peer(peer: Callable[[Tensor, int], Scorer], folder: Path, seed: int, size: Sequence[int] = SIZE) -> Row:
    """Fit a model on one set, seen at this height and width, px, and score its test images."""
    warnings.simplefilter("ignore")
    training, test = read_set(folder)
    started = time.perf_counter()
    score = peer(torch.cat(list(_batches(training, size))), seed)
    fitted = time.perf_counter()
    scores, maps = [], []
    originals = (decode(image.file).pixels.shape[:2] for image in test)
    with torch.inference_mode():
        for batch in _batches(test, size):
            of_images, of_places = score(batch)
            scores.append(of_images)
            for place, original in zip(of_places if of_places is not None else (), originals, strict=False):
                full = transforms.resize(place[None], list(original), antialias=True)
                maps.append(full[0].numpy().astype(np.float32))
    scored = time.perf_counter()
    found = figures(test, torch.cat(scores).double().numpy(), maps or None, seed, RESAMPLES)
    return {**found, **how(started, fitted, scored, len(test))}


def main() -> None:
    """Measure what FILE.json lacks, then print the table."""
    runs = measure_sets(__doc__, "model", MODELS, run, seeds="0,1,2")
    models = [name for name in MODELS if any(key.split("/")[1] == name for key in runs)]
    print(by_set(runs, "image_auroc", list(dict.fromkeys(key.split("/")[0] for key in runs)), models))


def _load(extractor: nn.Module) -> None:
    """The packaged weights, tensor by tensor: the network is cut after its last layer of use, so there are fewer."""
    given = [value for key, value in read_weights(packaged_lite0()[0]).items() if "num_batches_tracked" not in key]
    wanted = [key for key in extractor.state_dict() if "num_batches_tracked" not in key]
    state = dict(zip(wanted, given, strict=False))
    if any(extractor.state_dict()[key].shape != value.shape for key, value in state.items()):
        raise RuntimeError("the packaged weights do not fit the peer's network")
    extractor.load_state_dict(state, strict=False)


def _collect(model: nn.Module, images: Tensor) -> None:
    model.train()
    for module in model.modules():  # its own statistics stay those of ImageNet
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            model(batch)


def _score_with(model: nn.Module) -> Scorer:
    model.eval()

    def score(images: Tensor) -> Scores:
        scored = model(images)
        return scored.pred_score.flatten(), scored.anomaly_map.reshape(len(images), *images.shape[-2:])

    return score


def _batches(images: list[Any], size: Sequence[int]) -> Iterable[Tensor]:
    """Images decoded and resized as morphad does it, as the weights want them."""
    batch: list[Tensor] = []
    for pixels in in_order(lambda image: decode(image.file).pixels, images):
        tensor = torch.from_numpy(np.ascontiguousarray(pixels))
        tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
        resized = transforms.resize(tensor, list(size), antialias=True).expand(3, -1, -1).float()
        batch.append((resized - 127) / 128)
        if len(batch) == BATCH:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)


if __name__ == "__main__":
    main()
