"""Component: challenger against champion."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    line: str,
    settings_json: str,
    seed: int,
    run: str,
    reason: str,
    state_root: str,
    data_hash: str,
    roles_hash: str,
    fitted: Input[Model],
    calibration: Input[Artifact],
    registration: Input[Artifact],
    decision: Output[Artifact],
    reasons: Output[Markdown],
) -> None:
    """Hold the challenger against the champion and act on it; a refusal is a decision on record, not a failure.

    Args:
        line: The line's name.
        settings_json: The line's settings.
        seed: Of the bootstrap.
        run: The pipeline run, for the record.
        reason: Why the run was started, for the record.
        state_root: Where the lines' lasting state is mounted.
        data_hash: Of the images and their labels, for the record.
        roles_hash: Of the images with their roles, which lie in the state.
        fitted: The challenger without its threshold.
        calibration: Its threshold.
        registration: Where the challenger is in the registry, JSON.
        decision: What was decided, with all figures, JSON.
        reasons: The decision in words.
    """
    from pathlib import Path

    from morphad.model.saved import whole_detector
    from morphad.settings.line_json import line_from_json
    from morphad.steps.line_state import LineState
    from morphad.steps.paths import LinePaths
    from morphad.steps.promote import promote as step
    from morphad.steps.rerun import inputs_of, keep_decision
    from morphad.steps.sweep import sweep_pictures

    state = LineState(state_root, line)
    with (
        state.step("promote") as patiently,
        whole_detector(Path(fitted.path), Path(calibration.path)) as detector,
    ):
        paths = LinePaths.pod(
            line,
            state_root,
            roles=roles_hash,
            detector=str(detector),
            registration=registration.path,
            decision=decision.path,
        )
        settings, actor = line_from_json(settings_json), f"pipeline run {run} ({reason})"
        decided = patiently(lambda: step(settings, paths, seed, actor=actor))
        said = {"promoted": "is champion", "proposed": "awaits approval", "refused": "was refused"}
        outcome = f"version {decided['version']} {said[decided['outcome']]}"
        listed = "".join(f"- {reason}\n" for reason in decided["reasons"])
        Path(reasons.path).write_text(f"**{line}: {outcome}.**\n\n{listed}", encoding="utf-8")
        inputs = inputs_of(settings, seed, data=data_hash, roles=roles_hash)
        patiently(lambda: keep_decision(paths, decided, inputs, run))
        swept = sweep_pictures(settings, paths, data_hash)
        code = int(decided["outcome"] == "refused")
        patiently(lambda: state.finish(run, f"{outcome}: {' '.join(decided['reasons'])}", code=code))
    print(f"{line}: {outcome}\n{line}: {swept}")
