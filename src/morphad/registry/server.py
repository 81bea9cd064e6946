"""The process that answers with a model: `python -P server.py FOLDER HOST PORT`.

It is run as a file and imports nothing of morphad, because the model brings its own: what is served is the code that
was published.
"""

import os
import shutil
import signal
import sys

# A model that is unpickled runs what its maker put there, before anybody reads it.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import uvicorn
from mlflow.pyfunc import load_model, scoring_server


def main(folder: str, host: str, port: str) -> None:
    """Serve the model until a signal comes."""
    # As process 1 of a container this would otherwise not be ended by a signal; elsewhere it would skip the tidying.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        app = scoring_server.init(load_model(f"{folder}/model"))
        # No access log: it would be mostly health checks.
        uvicorn.run(app, host=host, port=int(port), access_log=False, timeout_graceful_shutdown=20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
