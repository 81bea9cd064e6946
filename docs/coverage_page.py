"""Write docs/results/coverage.md from the run of all tests before it: `make coverage`."""

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

from coverage import Coverage

from morphad.base.files import write_text

PAGE = Path(__file__).parent / "results" / "coverage.md"
TEXT = """# How much of src the tests reach

Branch coverage of `src`: **{percent:.0f} %** (`make coverage`, {date}). CI measures it with every change.
"""


def main() -> int:
    """Read .coverage of this folder, print the figure and write the page."""
    measured = Coverage()
    measured.load()
    percent = measured.report(file=io.StringIO())
    write_text(PAGE, TEXT.format(percent=percent, date=f"{datetime.now(UTC):%Y-%m-%d}"))
    sys.stdout.write(f"{percent:.0f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
