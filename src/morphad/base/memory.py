"""How this process gives memory back."""

import ctypes
import os
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT, _BLOCK = 512 << 20, 256 << 20


def keep_freed_blocks() -> None:
    """Let glibc keep up to 512 MB that were freed, for the next blocks of up to 256 MB.

    By itself it gives them back at once. A fit takes and frees hundreds of gigabytes in blocks of some megabytes, and
    spent a fifth of its processor's time on getting empty pages anew. Elsewhere, and where the environment sets
    MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_, nothing is changed.
    """
    if sys.platform != "linux" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _BLOCK)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
