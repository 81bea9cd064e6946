"""Component: the exit handler says how every line ended."""

from kfp import dsl
from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(
    lines: list[dict[str, str]],
    run: str,
    reason: str,
    state_root: str,
    status: PipelineTaskFinalStatus,
    summary: Output[Markdown],
) -> None:
    """Say how every line of the run ended, whatever became of the others.

    An exit handler gets no outputs of the tasks before it, and the status that it gets says nothing of single lines:
    what it says, it reads from the lines' state.

    Args:
        lines: The lines of the run, as the pipeline got them.
        run: The pipeline run.
        reason: Why the run was started.
        state_root: Where the lines' lasting state is mounted.
        status: How Kubeflow sees the run.
        summary: One row a line.
    """
    from pathlib import Path

    from morphad.base.errors import BadInputError, CheckFailedError, ending_process
    from morphad.steps.line_state import close

    with ending_process("pipeline"):
        if not lines:
            raise BadInputError(
                "the run has no lines; start it with `morphad pipeline submit`, which takes them from params.yaml, or "
                "give its parameter `lines` what it has in a run that was started so"
            )
        whole, table = close(state_root, [str(item["line"]) for item in lines], run)
    text = f"Run {run} ({reason}) ended as {status.state}. {table}"
    Path(summary.path).write_text(text, encoding="utf-8")
    print(text)
    with ending_process("pipeline"):
        if status.state == "SUCCEEDED" and not whole:  # no step failed, and yet a line has no end: steps were left out
            raise CheckFailedError("not every line came to its end")
