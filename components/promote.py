"""Component: challenger against champion."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    line: str,
    settings_json: str,
    seed: int,
    run: str,
    reason: str,
    state_root: str,
    data: Input[Dataset],
    roles: Input[Dataset],
    detector: Input[Model],
    registration: Input[Artifact],
    decision: Output[Artifact],
    reasons: Output[Markdown],
) -> None:
    """Hold the challenger against the champion and act on it; a refusal is a decision on record, not a failure.

    Args:
        line: The line's name.
        settings_json: The line's resolved settings.
        seed: Of the bootstrap.
        run: The pipeline run, for the record.
        reason: Why the run was started, for the record.
        state_root: Where the lines' lasting state is mounted.
        data: Folder of the snapshot.
        roles: Folder of split.parquet and holdout.json.
        detector: The challenger.
        registration: Where the challenger is in the registry, JSON.
        decision: What was decided, with all figures, JSON.
        reasons: The decision in words.
    """
    from pathlib import Path

    from morphad.base.patience import wait_out
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.promote import promote as step

    state = LineState(state_root, line)
    with state.step("promote"):
        paths = LinePaths.pod(
            line,
            state_root,
            data=data.path,
            roles=roles.path,
            detector=detector.path,
            registration=registration.path,
            decision=decision.path,
        )
        settings, actor = line_from_json(settings_json), f"pipeline run {run} ({reason})"
        decided = wait_out(lambda: step(settings, paths, seed, actor=actor), f"promote {line}")
        said = {"promoted": "is champion", "proposed": "awaits approval", "refused": "was refused"}
        outcome = f"version {decided['version']} {said[decided['outcome']]}"
        listed = "".join(f"- {reason}\n" for reason in decided["reasons"])
        Path(reasons.path).write_text(f"**{line}: {outcome}.**\n\n{listed}", encoding="utf-8")
        state.finish(run, f"{outcome}: {' '.join(decided['reasons'])}", int(decided["outcome"] == "refused"))
    print(f"{line}: {outcome}")
