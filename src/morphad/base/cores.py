"""How many cores this process may use, which in a container is less than the machine has."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Cores of this process: those that it may run on, or its cgroup's share of time where that is less.

    Part of a core counts as a whole one. PyTorch and `os.cpu_count` count the machine's cores: a pod with a limit of 8
    on a node of 64 then has 64 threads that wait for each other.

    Args:
        root: Where /proc and /sys are.

    Returns:
        1 or more.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Limits of the cgroup and of those around it, in cores; of version 2 and of version 1.

    A container often sees its own cgroup as the uppermost folder, whatever path /proc names.
    """
    found = []
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        within = Path(path.lstrip("/"))
        for folder in (within, *within.parents) if ".." not in within.parts else (Path(),):
            if not controllers:
                quota, _, period = _read(mounted / folder / "cpu.max").partition(" ")
            elif "cpu" in controllers.split(","):
                place = mounted / "cpu" / folder  # also where the folder is cpu,cpuacct
                quota, period = _read(place / "cpu.cfs_quota_us"), _read(place / "cpu.cfs_period_us")
            else:
                continue
            if quota.isdigit() and period.isdigit() and int(period):
                found.append(int(quota) / int(period))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
