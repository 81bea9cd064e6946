"""A run of a line whose services go away: it waits for them and ends well."""

import pytest

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from benchmarks import outages
from stack.stack import Stack


@pytest.mark.slow
def test_a_run_waits_for_s3_and_mlflow(stack: Stack) -> None:
    figures = outages.run(stack, seconds=4, patience_seconds=1)
    assert figures["green"], figures
    for step in outages.AWAY:
        assert figures["steps"][step]["waits"] >= 1, figures
