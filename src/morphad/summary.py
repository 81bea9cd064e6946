"""What happened to every line, in words, and what to do next."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from morphad.decision.wording import percent
from morphad.errors import BadInputError
from morphad.files import read_json
from morphad.report.page import IndexEntry, write_index
from morphad.settings import ProjectSettings
from morphad.steps import verdict_of
from morphad.text import masked
from morphad.workspace import Workspace


def summarise(project: ProjectSettings, root: Path) -> str:
    """Say what every line has come to, and refresh reports/index.html.

    Raises:
        BadInputError: A line has figures that cannot be read.
    """
    parts: list[str] = []
    entries: list[IndexEntry] = []
    open_lines: list[str] = []
    champions: list[str] = []
    for line in project.lines:
        place = Workspace(root, line)
        if not (place.report / "metrics.json").exists() or not (place.detector / "detector.json").exists():
            parts.append(f"{line}\n  not evaluated yet")
            open_lines.append(line)
            continue
        verdict = verdict_of(place.report, place.detector)
        written = datetime.fromtimestamp((place.report / "metrics.json").stat().st_mtime, UTC)
        entries.append(IndexEntry(line, f"{written:%Y-%m-%d %H:%M} UTC", verdict))
        rows = [verdict.sentence, *verdict.warnings, _figures(read_json(place.report / "metrics.json"))]
        if place.decision.exists():
            promoted, outcome = _decided(place.decision)
            rows.append(outcome)
            champions += [line] if promoted else []
        else:
            open_lines.append(line)
        rows.append(f"Page: {place.report / 'index.html'}")
        parts.append("\n".join([line, *(f"  {row}" for row in rows)]))
    if entries:
        write_index(root / "reports", entries)
    pages = root / "reports" / "index.html" if entries else None
    return "\n\n".join([*parts, _next(project, open_lines, champions, pages)])


def _decided(path: Path) -> tuple[bool, str]:
    """Whether a version was promoted, and that in words."""
    decision = read_json(path)
    try:
        standing = "is champion" if decision["promote"] else "was refused"
        return bool(decision["promote"]), f"Version {decision['version']} {standing}. {decision['reasons'][0]}"
    except (KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path}: not as morphad writes it; run `morphad promote` again") from error


def _figures(metrics: dict[str, Any]) -> str:
    auroc = metrics["image_auroc"]
    known = "no defects to measure on" if auroc is None else f"AUROC {percent(auroc)}"
    return f"Holdout: {metrics['n_good']} good, {metrics['n_defect']} defect images; {known}."


def _next(project: ProjectSettings, open_lines: list[str], champions: list[str], pages: Path | None) -> str:
    settings = next(iter(project.lines.values())).register_
    uri = masked(os.environ.get("MLFLOW_TRACKING_URI", "").strip() or settings.tracking_uri)
    runs = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
    steps = [f"finish {', '.join(open_lines)}: dvc repro"] if open_lines else []
    steps += [f"look at the pages: {pages}"] if pages else []
    steps += [f"look at runs and versions: {runs}"] if pages else []
    steps += [f"inspect pictures with the champion: morphad predict {champions[0]} IMAGE ..."] if champions else []
    steps.append("add your own line: copy a block of `lines` in params.yaml, point it at your folder, run dvc repro")
    return "\n".join(["What to do next", *(f"  - {step}" for step in steps)])
