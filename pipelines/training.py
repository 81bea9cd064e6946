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
from morphad.kubeflow.lines import line_items
from morphad.settings import ProjectSettings

PIPELINE = "morphad-training"


def training_pipeline(cluster: ClusterSettings, project: ProjectSettings) -> Any:
    """The pipeline, placed on a cluster.

    Inside the loop tasks take pipeline parameters, items and artifacts only: kfp.local replaces a parameter output of
    a task outside the loop by the item, without a word.

    The run's parameter `reason` says why it was started ("scheduled", "manual", "drift" and what drifted): monitoring
    retrains a line by a run of this pipeline with `lines` of that one line. It goes to MLflow, the decision's record
    and the table at the end.

    Args:
        cluster: What pods get.
        project: Lines and seed that the pipeline has where a run gives none.

    Returns:
        kfp's pipeline: to be compiled, or called with keyword arguments where kfp.local is set up.
    """
    default_lines = line_items(project)

    @dsl.pipeline(name=PIPELINE, description="Every line from camera folder to decision; a failed line stops no other.")
    def morphad_training(
        lines: list[dict[str, str]] = default_lines,
        seed: int = project.seed,
        reason: str = "scheduled",
        state_root: str = cluster.state.mount,
    ) -> None:
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        ending = place(notify(lines=lines, run=run, reason=reason, state_root=state_root), "notify", cluster)
        with (
            dsl.ExitHandler(ending, name="all-lines"),
            dsl.ParallelFor(lines, name="line", parallelism=cluster.parallelism) as item,
        ):
            common = {"line": item.line, "settings_json": item.settings_json, "state_root": state_root}
            ingested = place(ingest(**common, run=run), "ingest", cluster)
            data = ingested.outputs["data"]
            validated = place(validate(**common, data=data), "validate", cluster)
            roles = place(split(**common, seed=seed, data=data).after(validated), "split", cluster).outputs["roles"]
            fitted = place(
                train(**common, seed=seed, gpus=cluster.steps["train"].gpus, data=data, roles=roles), "train", cluster
            ).outputs["fitted"]
            calibrated = place(calibrate(**common, data=data, roles=roles, fitted=fitted), "calibrate", cluster)
            detector = {"fitted": fitted, "calibration": calibrated.outputs["calibration"]}
            evaluated = place(evaluate(**common, seed=seed, data=data, roles=roles, **detector), "evaluate", cluster)
            registered = place(
                register(**common, reason=reason, roles=roles, **detector, report=evaluated.outputs["report"]),
                "register",
                cluster,
            )
            place(
                promote(
                    **common,
                    seed=seed,
                    run=run,
                    reason=reason,
                    data=data,
                    roles=roles,
                    **detector,
                    registration=registered.outputs["registration"],
                ),
                "promote",
                cluster,
            )

    return morphad_training
