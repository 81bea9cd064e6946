"""Ports of the loopback address: which are free, and who has those that are not."""

import random
import socket
from collections.abc import Sequence
from contextlib import suppress

import psutil

from morphad.base.errors import ServiceError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not hold it
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def check_free(name: str, ports: Sequence[int]) -> None:
    """Refuse ports that somebody listens on.

    Args:
        name: The server that wants them, for the message.
        ports: Numbers, 1 to 65535.

    Raises:
        ServiceError: A port is in use; the message names it and, where this user may know, by whom.
    """
    for port in ports:
        if not is_free(port):
            raise ServiceError(
                f"{name}: port {port} of {HOST} is in use{_by_whom(port)}; end that, or start with --{name}-port NUMBER"
            )


def free_port(offsets: Sequence[int] = (0,)) -> int:
    """A port that is free, as are those at `offsets` from it; below those that outgoing connections use on Linux.

    Raises:
        ServiceError: None found.
    """
    for _ in range(200):
        port = random.randrange(10_240, 22_000)  # noqa: S311
        if all(is_free(port + offset) for offset in offsets):
            return port
    raise ServiceError(f"found no free ports on {HOST} between 10240 and 32010")


def _by_whom(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
