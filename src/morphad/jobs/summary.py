"""What happened to every line, in words, and what to do next."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphad.base.errors import BadInputError, MorphadError, ServiceError
from morphad.base.files import read_json
from morphad.base.text import masked
from morphad.base.wording import percent
from morphad.report.page import IndexEntry, write_index
from morphad.report.verdict import read_verdict
from morphad.settings import ProjectSettings, RegisterSettings
from morphad.steps.paths import LinePaths

if TYPE_CHECKING:
    from morphad.registry import Registry


def summarise(project: ProjectSettings, root: Path) -> str:
    """Say what every line has come to, and refresh reports/index.html.

    Which version serves is what the registry says now. The project's files say what was decided once.

    Raises:
        BadInputError: A line has figures that cannot be read.
    """
    parts: list[str] = []
    entries: list[IndexEntry] = []
    open_lines: list[str] = []
    champions: list[str] = []
    waiting: list[str] = []
    broken_lines: dict[str, Path] = {}
    registries = _Registries()
    for line, settings in project.lines.items():
        place = LinePaths.checkout(root, line)
        broken = _contract(place)
        if broken:
            broken_lines[line] = place.contract_page
        if not (place.report / "metrics.json").exists() or not (place.detector / "detector.json").exists():
            parts.append("\n  ".join([line, *broken, "not evaluated yet"]))
            open_lines += [] if broken else [line]
            continue
        verdict = read_verdict(place.report, place.detector)
        written = datetime.fromtimestamp((place.report / "metrics.json").stat().st_mtime, UTC)
        entries.append(IndexEntry(line, f"{written:%Y-%m-%d %H:%M} UTC", verdict))
        rows = [*broken, *(["What follows is of earlier data."] if broken else [])]
        rows += [verdict.sentence, *verdict.warnings, _figures(read_json(place.report / "metrics.json"))]
        if place.decision.exists():
            standing = registries.standing(line, settings.register_, place)
            rows.append(standing.sentence)
            champions += [line] if standing.champion else []
            waiting += [line] if standing.waits else []
            open_lines += [] if standing.settled or broken else [line]
        else:
            open_lines += [] if broken else [line]
        rows.append(f"Page: {place.report / 'index.html'}")
        parts.append("\n".join([line, *(f"  {row}" for row in rows)]))
    if entries:
        write_index(root / "reports", entries)
    pages = root / "reports" / "index.html" if entries else None
    steps = [f"correct the data of {line}, see {page}, then: dvc repro" for line, page in broken_lines.items()]
    steps += [f"finish {', '.join(open_lines)}: dvc repro"] if open_lines else []
    steps += [
        f"decide on {line}: morphad approve {line} --why ... or morphad decline {line} --why ..." for line in waiting
    ]
    return "\n\n".join([*parts, _next(project, steps, champions, pages)])


def _contract(place: LinePaths) -> list[str]:
    """What the data contract stopped the line for; [] where it did not."""
    found: Any = read_json(place.validation) if place.validation.exists() else {"passed": True}
    try:
        errors = [finding for finding in found.get("findings", ()) if finding["severity"] == "error"]
        said = [f"The data break their contract: {finding['name']}: {finding['message']}." for finding in errors]
        return said if not found["passed"] else []
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInputError(f"{place.validation}: not as morphad writes it; run `morphad validate` again") from error


@dataclass(frozen=True)
class _Standing:
    """What became of a decision.

    Attributes:
        sentence: That, in words.
        settled: It was on a version that is in the registry.
        champion: The line has a champion, this version or another.
        waits: It is to be approved or declined.
    """

    sentence: str
    settled: bool = False
    champion: bool = False
    waits: bool = False


class _Registries:
    """The registries of the lines; one that fails is not asked again."""

    def __init__(self) -> None:
        self._asked: dict[str, Registry | MorphadError] = {}

    def standing(self, line: str, settings: RegisterSettings, place: LinePaths) -> _Standing:
        """Hold what was decided for a line against what its registry says now."""
        outcome, number, reason, run = _decided(place)
        promoted, decided = outcome == "promoted", f"Version {number} {_OUTCOMES[outcome]}"
        try:
            registry = self._registry(settings)
            champion = registry.champion(line)
            version = next((found for found in registry.history(line) if found.number == number), None)
            about = () if number is None else registry.trail(line).of_version(number)
        except MorphadError as error:
            if isinstance(error, ServiceError):  # of the registry, and not of this line alone
                self._asked[settings.tracking_uri] = error
            return _Standing(f"{reason if number is None else decided}. What holds now is not known: {error}")
        serves = champion is not None
        now = "No version is champion now." if champion is None else f"Version {champion.number} is champion now."
        if number is None:
            return _Standing(f"{reason}. {now}", champion=serves)
        if version is None or (run and version.run_id != run):
            return _Standing(f"{decided}, but it is not in the registry at {registry.uri}. {now}", champion=serves)
        last = about[-1] if about else None
        if champion is not None and champion.number == number:
            sentence = f"Version {number} is champion. {reason if promoted else ''}".rstrip()
            return _Standing(sentence, settled=True, champion=True)
        if last is not None and last.action in _TAKEN_BACK:
            why = " ".join(last.reasons).rstrip(".")
            sentence = f"Version {number} {_TAKEN_BACK[last.action]} by {last.by}: {why}. {now}"
        else:
            sentence = f"{decided}. {now}" if promoted else f"{decided}. {reason} {now}"
        if serves:
            sentence += f" The figures here are of version {number}."
        waits = outcome == "proposed" and (last is None or last.action == "proposed")
        return _Standing(sentence, settled=True, champion=serves, waits=waits)

    def _registry(self, settings: RegisterSettings) -> "Registry":
        from morphad.registry import Registry  # noqa: PLC0415 - mlflow needs seconds; without a decision it is not asked

        asked = self._asked.get(settings.tracking_uri)
        if isinstance(asked, MorphadError):
            raise asked
        if asked is None:
            asked = self._asked[settings.tracking_uri] = Registry(settings)
        return asked


_TAKEN_BACK = {
    "rolled back": "was taken out of service",
    "taken out of service": "was taken out of service",
    "declined": "was declined",
}
_OUTCOMES = {"promoted": "was promoted", "refused": "was refused", "proposed": "passed the gate and awaits approval"}


def _decided(place: LinePaths) -> tuple[str, int | None, str, str]:
    """What the gate decided, on which version (None: an experiment's, of no version), why, and the run that made it."""
    decision = read_json(place.decision)
    registration = read_json(place.registration) if place.registration.exists() else {}
    try:
        number = decision["version"]
        run = str(registration["run_id"]) if number is not None and registration.get("version") == number else ""
        outcome = str(decision["outcome"]) if number is not None else "refused"
        if outcome not in _OUTCOMES:
            raise KeyError(outcome)
        return outcome, number, " ".join(str(reason) for reason in decision["reasons"]), run
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{place.decision}: not as morphad writes it; run `morphad promote` again") from error


def _figures(metrics: dict[str, Any]) -> str:
    auroc = metrics["image_auroc"]
    known = "no defects to measure on" if auroc is None else f"AUROC {percent(auroc)}"
    return f"Holdout: {metrics['n_good']} good, {metrics['n_defect']} defect images; {known}."


def _is_there(uri: str) -> bool:
    """Whether a registry may be shown: `mlflow ui` would make a local one that is missing, in MLflow's own way."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///").partition("?")[0]).exists()


# MLflow's pages of versions, in the view of machine learning: its own choice is the view of language models' traces.
_PAGES = "#/models?workflowType=machine_learning"


def _next(project: ProjectSettings, steps: list[str], champions: list[str], pages: Path | None) -> str:
    settings = next(iter(project.lines.values())).register_
    uri = masked(os.environ.get("MLFLOW_TRACKING_URI", "").strip() or settings.tracking_uri)
    if uri.startswith("http"):
        runs = f"{uri.rstrip('/')}/{_PAGES}"
    else:
        runs = f"mlflow ui --backend-store-uri {uri}, then http://localhost:5000/{_PAGES}"
    steps += [f"open the pages: {pages}"] if pages else []
    steps += [f"see runs and versions: {runs}"] if pages and _is_there(uri) else []
    steps += [f"inspect pictures with the champion: morphad predict {champions[0]} IMAGE ..."] if champions else []
    steps.append("add your own line: copy a block of `lines` in params.yaml, point it at your folder, run dvc repro")
    return "\n".join(["What to do next", *(f"  - {step}" for step in steps)])
