"""Component: the scores of one shard of a batch."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_predict(
    line: str, shard: int, shards: int, model: Input[Model], batch: Input[Dataset], predictions: Output[Dataset]
) -> None:
    """Score the images of one shard; repeated, it writes the same bytes.

    Args:
        line: The line's name.
        shard: Which shard, from 0.
        shards: How many there are.
        model: What batch_plan settled.
        batch: What batch_plan listed.
        predictions: Folder of shard.parquet, one row an image of this shard.
    """
    from pathlib import Path

    from morphad.base.errors import ending_process
    from morphad.base.patience import wait_out
    from morphad.jobs import batch as prediction

    what = f"batch-predict {line}, shard {shard}"
    listed, table = Path(batch.path) / "batch.parquet", Path(predictions.path) / "shard.parquet"
    with ending_process(what):
        figures = wait_out(
            lambda: prediction.predict_shard(shard, shards, model=Path(model.path), batch=listed, table=table), what
        )
    predictions.metadata.update(figures)
    print(f"{line}, shard {shard} of {shards}: {prediction.told(figures)}")
