"""Component: what all shards of a batch prediction use, settled once."""

from kfp import dsl
from kfp.dsl import Dataset, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_plan(
    line: str,
    settings_json: str,
    images: str,
    root: str,
    shards: int,
    model: Output[Model],
    batch: Output[Dataset],
) -> list[int]:
    """Take the champion as it is now, list the images, and number the shards.

    Args:
        line: The line's name.
        settings_json: The line's settings, as `morphad pipeline submit-batch` gives them.
        images: A folder that every pod has, s3://bucket/prefix, or a .csv or .parquet table with a column `path`.
        root: Where the paths of a table begin; empty: the table's folder.
        shards: In how many parts the batch is worked through.
        model: Folder of the detector and what is to be known of it.
        batch: Folder of batch.parquet, one row an image.

    Returns:
        0 to shards - 1.
    """
    from pathlib import Path

    from morphad.base.errors import BadInputError, ending_process
    from morphad.base.patience import wait_out
    from morphad.jobs import batch as prediction
    from morphad.settings.line_json import line_from_json

    with ending_process(f"batch-predict {line}"):
        if not settings_json:
            raise BadInputError(
                f"the run has no settings of line {line}; start it with `morphad pipeline submit-batch {line} IMAGES`, "
                "which gives them in the parameter `settings_json`"
            )
        if not 1 <= shards <= prediction.MOST_SHARDS:
            raise BadInputError(f"{shards} shards: expected 1 to {prediction.MOST_SHARDS}")
        settings, listed = line_from_json(settings_json), Path(batch.path) / "batch.parquet"
        figures = wait_out(
            lambda: prediction.plan(line, settings, images, root, model=Path(model.path), batch=listed),
            f"batch-predict {line}",
        )
    model.metadata["model"] = figures["model"]
    batch.metadata["images"] = figures["images"]
    print(f"{line}: {figures['images']} images in {shards} shards for {figures['model']}")
    return list(range(shards))
