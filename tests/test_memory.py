"""Memory that is freed stays with the process, where the C library can be asked for it."""

import os
import subprocess
import sys

import pytest

FREED_AGAIN_AND_AGAIN = """
import resource, sys
if sys.argv[1] == "kept":
    from morphad.base.memory import keep_freed_blocks
    keep_freed_blocks()
for _ in range(20):
    block = b"x" * 60_000_000
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is asked")
def test_blocks_are_had_again_without_new_pages() -> None:
    def pages(how: str, **environment: str) -> int:
        words = [sys.executable, "-c", FREED_AGAIN_AND_AGAIN, how]
        done = subprocess.run(words, env=os.environ | environment, text=True, capture_output=True, check=True)
        return int(done.stdout)

    before = pages("given back")
    if before < 200_000:
        pytest.skip("this C library keeps freed blocks by itself")
    assert pages("kept") < before / 4
    assert pages("kept", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > before / 2
