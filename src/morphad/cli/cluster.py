"""The words that begin a command about Kubeflow; kfp needs seconds to import, so its verbs wait for them."""

WORDS = {
    "pipeline": "run the pipeline here in containers or processes, or upload, submit and watch it in Kubeflow",
    "schedule": "hold the recurring runs in Kubeflow to pipelines/schedules.yaml",
}


def run(arguments: list[str]) -> int:
    """Run a command that begins with one of `WORDS`; give the exit code."""
    from morphad.kubeflow.cli import main

    return main(arguments)
