"""A version as a service."""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from morphad.base.errors import BadInputError
from morphad.registry.records import Version
from morphad.registry.registry import Registry

_SERVER = Path(__file__).with_name("server.py")


def serve(registry: Registry, version: Version, host: str, port: int) -> NoReturn:
    """Fetch a version and become the process that answers with it, at /invocations and /ping, until a signal comes.

    Args:
        registry: Where the version is.
        version: What to serve.
        host: Address to listen at.
        port: Port to listen at.

    Raises:
        BadInputError: Nobody can listen at that address.
        ServiceError: MLflow does not answer, or what came is not what was published.
    """
    _check_address(host, port)
    scratch = Path(tempfile.mkdtemp(prefix="morphad-serve-"))
    try:
        registry.download_model(version, scratch / "model")
        # In place of this process: it has imported its own morphad, and a service need not hold both in memory.
        os.execv(sys.executable, [sys.executable, "-P", str(_SERVER), str(scratch), host, str(port)])  # noqa: S606
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _check_address(host: str, port: int) -> None:
    """Find out before minutes of fetching and loading."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise BadInputError(f"cannot listen at {host}:{port}: {said}; give another --host or --port") from None
