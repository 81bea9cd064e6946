"""The training pipeline: every line from camera folder to decision, each on its own."""

from typing import Any

from kfp import dsl

from components.calibrate import calibrate
from components.evaluate import evaluate
from components.ingest import ingest
from components.notify import notify
from components.promote import promote
from components.register import register
from components.split import split
from components.train import train
from components.validate import validate
from morphad.kubeflow.cluster import ClusterSettings, place

PIPELINE = "morphad-training"


def training_pipeline(cluster: ClusterSettings) -> Any:
    """The pipeline, placed on a cluster. It holds no line: a run brings its lines with their settings.

    Inside the loop tasks take pipeline parameters, items, and outputs of tasks of the loop only: kfp.local replaces a
    parameter output of a task outside the loop by the item, without a word.

    After `split`, where a run with nothing new ends, cached steps take parameters and artifacts of cached steps alone:
    Kubeflow's cache knows an artifact by a number, and that of a step that always runs is new each time.

    The run's parameter `reason` says why it was started ("scheduled", "manual", "drift" and what drifted): monitoring
    retrains a line by a run of this pipeline with `lines` of that one line. It goes to MLflow, the decision's record
    and the table at the end. `free_at` says since when its lines are free, as far as Kubeflow knows: what `submit` saw.

    Args:
        cluster: What pods get.

    Returns:
        kfp's pipeline: to be compiled, or called with keyword arguments where kfp.local is set up.
    """

    @dsl.pipeline(name=PIPELINE, description="Every line from camera folder to decision; a failed line stops no other.")
    def morphad_training(  # noqa: PLR0917 - parameters of a run are given by name
        lines: list[dict[str, str]] = [],  # noqa: B006 - kfp reads it once; a run without lines ends in `notify`
        seed: int = 0,
        reason: str = "scheduled",
        force: bool = False,
        free_at: float = 0.0,
        state_root: str = cluster.state.mount,
    ) -> None:
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        ending = place(notify(lines=lines, run=run, reason=reason, state_root=state_root), "notify", cluster)
        with (
            dsl.ExitHandler(ending, name="all-lines"),
            dsl.ParallelFor(lines, name="line", parallelism=cluster.parallelism) as item,
        ):
            line = {"line": item.line, "state_root": state_root}
            whole = {**line, "settings_json": item.settings_json}
            ingested = place(ingest(**whole, run=run, free_at=free_at), "ingest", cluster)
            data, data_hash = ingested.outputs["data"], ingested.outputs["Output"]
            validated = place(validate(**whole, data=data), "validate", cluster)
            course = place(
                split(**whole, seed=seed, run=run, force=force, data_hash=data_hash, data=data).after(validated),
                "split",
                cluster,
            ).outputs
            with dsl.If(course["Output"] == "yes", name="something-new"):
                roles = {"roles_hash": course["roles_hash"]}
                fitted = place(
                    train(
                        **line,
                        **roles,
                        settings_json=course["train"],
                        seed=seed,
                        gpus=cluster.steps["train"].gpus,
                        again=course["again"],
                    ),
                    "train",
                    cluster,
                ).outputs["fitted"]
                calibration = place(
                    calibrate(**line, **roles, settings_json=course["calibrate"], fitted=fitted), "calibrate", cluster
                ).outputs["calibration"]
                detector = {"fitted": fitted, "calibration": calibration}
                report = place(
                    evaluate(**line, **roles, settings_json=course["evaluate"], seed=seed, **detector),
                    "evaluate",
                    cluster,
                ).outputs["report"]
                registration = place(
                    register(**whole, **roles, reason=reason, **detector, report=report), "register", cluster
                ).outputs["registration"]
                place(
                    promote(
                        **whole,
                        **roles,
                        seed=seed,
                        run=run,
                        reason=reason,
                        data_hash=data_hash,
                        **detector,
                        registration=registration,
                    ),
                    "promote",
                    cluster,
                )

    return morphad_training
