"""The batch prediction pipeline: the images of a line in shards, each in a pod of its own, then one table."""

from typing import Any

from kfp import dsl

from components.batch_merge import batch_merge
from components.batch_plan import batch_plan
from components.batch_predict import batch_predict
from morphad.kubeflow.cluster import ClusterSettings, place

PIPELINE = "morphad-batch-predict"


def prediction_pipeline(cluster: ClusterSettings) -> Any:
    """The pipeline, placed on a cluster.

    The run's parameter `reason` is on record with the run; no step reads it.

    The version of the model is settled once and goes to the shards as an artifact: a promotion meanwhile changes
    nothing, and kfp.local would replace a parameter from outside the loop by the loop's item.

    Args:
        cluster: What pods get.

    Returns:
        kfp's pipeline: to be compiled, or called with keyword arguments where kfp.local is set up.
    """

    @dsl.pipeline(name=PIPELINE, description="Any number of images through a line's champion, into one table.")
    def morphad_batch_predict(  # noqa: PLR0917 - parameters of a run are given by name
        line: str,
        images: str,
        settings_json: str = "",
        root: str = "",
        shards: int = 4,
        reason: str = "manual",
    ) -> None:
        planned = place(
            batch_plan(line=line, settings_json=settings_json, images=images, root=root, shards=shards),
            "batch_plan",
            cluster,
        )
        with dsl.ParallelFor(planned.outputs["Output"], name="shard", parallelism=cluster.parallelism) as shard:
            predicted = place(
                batch_predict(
                    line=line,
                    shard=shard,
                    shards=shards,
                    model=planned.outputs["model"],
                    batch=planned.outputs["batch"],
                ),
                "batch_predict",
                cluster,
            )
        place(batch_merge(line=line, tables=dsl.Collected(predicted.outputs["predictions"])), "batch_merge", cluster)

    return morphad_batch_predict
