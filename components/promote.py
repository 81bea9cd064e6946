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

    from morphad import steps
    from morphad.linestate import LineState
    from morphad.settings.line_json import line_from_json

    state = LineState(state_root, line)
    with state.step("promote"):
        settings = line_from_json(settings_json)
        decided = steps.promote(
            line,
            settings.register_,
            settings.promote,
            settings.ingest,
            seed,
            split=Path(roles.path) / "split.parquet",
            snapshot_dir=Path(data.path) / "images",
            holdout=Path(roles.path) / "holdout.json",
            detector=Path(detector.path),
            registration=Path(registration.path),
            decision=Path(decision.path),
            reference=state.reference,
            actor=f"pipeline run {run} ({reason})",
        )
        said = {"promoted": "is champion", "proposed": "awaits approval", "refused": "was refused"}
        outcome = f"version {decided['version']} {said[decided['outcome']]}"
        listed = "".join(f"- {reason}\n" for reason in decided["reasons"])
        Path(reasons.path).write_text(f"**{line}: {outcome}.**\n\n{listed}", encoding="utf-8")
        state.finish(run, f"{outcome}: {' '.join(decided['reasons'])}")
    print(f"{line}: {outcome}")
