"""`python -m morphad.model.training.worker FOLDER`: one of several processes that train together."""

import sys
import traceback
from dataclasses import asdict
from pathlib import Path

import torch

from morphad.base.errors import MorphadError
from morphad.base.progress import silent
from morphad.model.morphology import parse_case
from morphad.model.network import MorphologyNetwork
from morphad.model.training.distributed import joined
from morphad.model.training.launching import forget, leave, reporter, take, tell_failure
from morphad.model.training.loop import run_loop
from morphad.settings import TrainSettings


def main(folder: Path) -> int:
    """Do this process's part of the training that `folder` describes; give the exit code."""
    try:
        job, images, weights = take(folder)
        settings = TrainSettings.model_validate(job["settings"])
        table = [parse_case(name) for name in job["cases"]]
        network = MorphologyNetwork(settings, table, job["seed"], initialise=False)
        network.load_state_dict(weights)
        with joined(torch.device(job["device"])) as (ranks, device):
            if ranks.rank == 0:
                forget(folder)
            result = run_loop(
                network,
                images,
                settings,
                table,
                seed=job["seed"],
                checkpoint=Path(job["checkpoint"]) if job["checkpoint"] else None,
                fingerprint=job["fingerprint"],
                device=device,
                ranks=ranks,
                progress=reporter(folder) if ranks.rank == 0 else silent,
            )
        if ranks.rank == 0:
            leave(folder, network, asdict(result))
    except Exception as error:
        # The message goes to the parent, which knows which process failed first.
        tell_failure(folder, error, str(error) if isinstance(error, MorphadError) else traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
