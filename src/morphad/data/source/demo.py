"""The packaged demonstration set: cells of photovoltaic modules."""

from importlib import resources
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.data.source.image import SourceImage
from morphad.settings import IngestSettings

DEMO_LICENCE = (
    "Images: elpv-dataset (Buerhop-Lutz et al., 2018; Deitsch et al., 2019, 2021), ZAE Bayern, CC BY-NC-SA 4.0: "
    "for trying morphad out, not for commercial use."
)


def demo_images(settings: IngestSettings) -> list[SourceImage]:
    """Cells of photovoltaic modules: good where experts are sure, defective where they are, the doubtful left out."""
    if settings.path not in {"mono", "poly"}:
        raise BadInputError(f"ingest.path = {settings.path!r}: the demo lines are mono and poly")
    try:
        package = resources.files("elpv_dataset")
    except ModuleNotFoundError as error:
        raise BadInputError('the demo images are not installed; run: pip install "morphad[demo]"') from error
    folder = Path(str(package)) / "data"
    images = []
    for row in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, kind = row.split()
        if kind == settings.path and float(probability) in {0.0, 1.0}:
            good = float(probability) == 0
            images.append(SourceImage(folder, name, "good" if good else "defect", "" if good else "defective", "elpv"))
    return images
