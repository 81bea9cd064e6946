"""Photograph the head of a line's page for the README: `python docs/picture.py`, or `make picture`.

The page is that of a real but small model, fitted anew in a folder of its own: 300 good and 300 defect images of
pv-mono of `make demo`, preset fast, 128 x 128 px. It needs Chromium. `docs/images/page.json` says which files of
`report/` the page was drawn by. By their hashes a test knows when the picture is no longer that of today's page.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from morphad.base.files import atomic_file, sha256_file, write_json

REPO = Path(__file__).resolve().parents[1]
PICTURE = REPO / "docs" / "images" / "page.png"
DRAWN_BY = ("head.html", "page.html", "page.css", "charts.py")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LINE = "pv-mono"
PARAMS = f"""lines:
  {LINE}:
    ingest: {{source: demo, path: mono, limit: 300}}
    train: {{preset: fast, image_size: [128, 128]}}
"""
STEPS = ("ingest", "validate", "split", "train", "calibrate", "evaluate")
WIDTH, HEIGHT = 1100, 1290  # down to the charts' captions


def hashes() -> dict[str, str]:
    """The files that the page is drawn by, and their SHA-256."""
    folder = REPO / "src" / "morphad" / "report"
    return {name: sha256_file(folder / name) for name in DRAWN_BY}


def make_page(folder: Path) -> Path:
    """Run the steps of the line up to its page, in an empty folder."""
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    for step in STEPS:
        subprocess.run([sys.executable, "-m", "morphad.cli", step, LINE], cwd=folder, check=True)
    return folder / "reports" / LINE / "index.html"


def photograph(page: Path, target: Path) -> None:
    """The head of a page as PNG, in few colours, as light as the page is."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={folder}/user", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=False, timeout=120)
        if not shot.exists():
            sys.exit(f"{browser} made no picture of {page}: {done.stderr[-500:]}")
        with Image.open(shot) as image, atomic_file(target) as file:
            image.convert("RGB").quantize(64).save(file, format="PNG", optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Make the page and its picture, and note what it was drawn by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    before = hashes()
    with tempfile.TemporaryDirectory() as folder:
        photograph(make_page(Path(folder)), PICTURE)
    facts = {"made": f"{datetime.now(UTC):%Y-%m-%d}", "line": LINE, "drawn_by": before}
    write_json(PICTURE.with_suffix(".json"), facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
