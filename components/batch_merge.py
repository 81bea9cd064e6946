"""Component: the shards of a batch prediction as one table."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_merge(
    line: str, tables: Input[list[Dataset]], predictions: Output[Dataset], summary: Output[Markdown]
) -> None:
    """Join the shards' tables in the order of the batch.

    Args:
        line: The line's name.
        tables: What batch_predict wrote, all shards.
        predictions: Folder of predictions.parquet, one row an image.
        summary: How many were rejected, accepted, unreadable.
    """
    from pathlib import Path

    from morphad.base.errors import ending_process
    from morphad.jobs import batch as prediction

    with ending_process(f"batch-predict {line}"):
        figures = prediction.merge(
            [Path(table.path) / "shard.parquet" for table in tables], Path(predictions.path) / "predictions.parquet"
        )
    predictions.metadata.update(figures)
    Path(summary.path).write_text(f"**{line}**: {prediction.told(figures)}.\n", encoding="utf-8")
    print(f"{line}: {prediction.told(figures)}")
