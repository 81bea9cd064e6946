"""Write the pages of docs/reference that follow from the code: `python docs/generate.py [--check]`.

settings.md comes from the settings' classes, command-line.md from the parsers of `morphad`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morphad import cli
from morphad.kubeflow import cli as kubeflow_cli
from morphad.settings import LineSettings, ProjectSettings, Settings
from morphad.settings.checks import CHECKS
from morphad.settings.presets import PRESETS

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/generate.py. Do not edit: change the code, then run `python docs/generate.py`. -->"


def settings_page() -> str:
    """Every key of params.yaml: what it means, what is allowed, its default."""
    parts = [
        "# Settings: params.yaml",
        MADE,
        "A line's value wins over that of `defaults`. That wins over the preset (section `train`), and the preset over "
        "the default in these tables.",
        "An unknown key and a value out of range are errors before any work. The message names file, key, value and "
        "what is allowed.",
        "How a line of your own begins: [the first line](../tutorial/first-line.md).",
        "## The file",
        _doc(ProjectSettings),
        _table(ProjectSettings, leave={"lines"}),
        "`defaults` has the sections below; `lines` has a block for each line with the same sections.",
    ]
    for name, field in LineSettings.model_fields.items():
        key, section = field.alias or name, field.annotation
        assert isinstance(section, type) and issubclass(section, Settings)  # noqa: S101 -- LineSettings has no others
        parts += [f"## {key}", _doc(section), _table(section)]
        if key == "train":
            parts += ["### Presets", _presets()]
        if key == "validate":
            parts += ["### Checks and their severity", _checks()]
    return "\n\n".join(parts) + "\n"


def command_line_page() -> str:
    """Every verb of `morphad`: its arguments, their defaults."""
    groups = {"pipeline", "schedule"}
    own = [(words, parser) for words, parser in _verbs(cli._parser()) if words[0] not in groups]
    kubeflow = list(_verbs(kubeflow_cli._parser()))
    parts = [
        "# Command line",
        MADE,
        "`morphad --help` lists the verbs, `morphad VERB --help` shows one. Capital letters stand for what you give. "
        "What is in square brackets may be left out.",
        "Exit codes: 0 done, 1 a gate or check said no, 2 wrong use or bad input, 3 a service did not answer.",
        _markdown(
            ["verb", "what it does"],
            [[f"[{' '.join(words)}](#morphad-{'-'.join(words)})", _about(parser)] for words, parser in own + kubeflow],
        ),
    ]
    for words, parser in own + kubeflow:
        actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        ordered = sorted(actions, key=lambda action: bool(action.option_strings))
        usage = " ".join(["morphad", *words, *map(_usage, ordered)])
        parts += [f"## morphad {' '.join(words)}", f"{_about(parser)}", f"```text\n{usage}\n```"]
        if actions:
            parts.append(_markdown(["argument", "meaning", "default"], [_argument(action) for action in ordered]))
    return "\n\n".join(parts) + "\n"


PAGES = {"settings.md": settings_page, "command-line.md": command_line_page}


def _doc(model: type[Settings]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].strip()


def _table(model: type[Settings], leave: frozenset[str] | set[str] = frozenset()) -> str:
    rows = [row for row in _rows(model) if row[0].strip("`").split(".")[0] not in leave]
    return _markdown(["key", "allowed", "default", "meaning"], rows)


def _rows(model: type[Settings], prefix: str = "") -> Iterator[list[str]]:
    """A row a key; the keys of nested settings with a dot."""
    schema = model.model_json_schema(by_alias=True)
    for name, field in model.model_fields.items():
        key = field.alias or name
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)
        if nested is not None:
            if not field.is_required() and field.default is None:
                yield [f"`{prefix}{key}`", "the keys below, or null", "null", field.description or _doc(nested)]
            yield from _rows(nested, f"{prefix}{key}.")
            continue
        default = "required" if field.is_required() else f"`{_value(field.default)}`"
        yield [
            f"`{prefix}{key}`",
            _allowed(schema["properties"][key]),
            default,
            (field.description or "").replace("<", "&lt;"),
        ]


def _allowed(node: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "anyOf" in node:
        return " or ".join(_allowed(option) for option in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{_value(value)}`" for value in node["enum"])
    if "const" in node:
        return f"`{_value(node['const'])}`"
    if node.get("type") == "array":
        items = node.get("prefixItems")
        return f"[{', '.join(map(_allowed, items))}]" if items else f"list of {_allowed(node['items'])}"
    if node.get("type") == "object":
        names = _allowed(node["propertyNames"]) if "propertyNames" in node else "names"
        return f"mapping of {names} to {_allowed(node['additionalProperties'])}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
    limits = [
        f"{symbol} {_value(node[word])}"
        for word, symbol in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if word in node
    ]
    return " ".join([words.get(node.get("type", ""), "as described"), " and ".join(limits)]).strip()


def _value(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(below)}" for key, below in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return '""' if value == "" else str(value)


def _presets() -> str:
    """What each preset changes, in dotted keys."""
    flat = {name: dict(_flat(values)) for name, values in PRESETS.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    rows = [[f"`{key}`", *(f"`{values[key]}`" if key in values else "" for values in flat.values())] for key in keys]
    note = "Empty: the default of the table above. A line's own keys win."
    return f"{note}\n\n{_markdown(['key', *flat], rows)}"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _value(value)


def _checks() -> str:
    """The names for `validate.severity`, by severity."""
    rows = [
        [severity, ", ".join(f"`{name}`" for name, given in CHECKS.items() if given == severity)]
        for severity in ("error", "warning", "off")
    ]
    note = "What each check means: [the data contract](../decisions/contract.md)."
    return f"{note}\n\n{_markdown(['severity', 'checks'], rows)}"


def _verbs(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Each verb with its words; groups of verbs are walked through."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if words and not groups:
        yield words, parser
    for group in groups:
        for name, below in group.choices.items():
            yield from _verbs(below, *words, name)


def _about(parser: argparse.ArgumentParser) -> str:
    """What a verb does, as a sentence."""
    first = (parser.description or "").strip().splitlines()[0].rstrip(".")
    return f"{first[:1].upper()}{first[1:]}."


def _usage(action: argparse.Action) -> str:
    """An argument as the usage line has it."""
    names = action.option_strings
    value = "" if action.nargs == 0 else _metavar(action)
    if not names:
        return {"+": f"{value} [{value} ...]", "*": f"[{value} ...]", "?": f"[{value}]"}.get(str(action.nargs), value)
    value = {"+": f"{value} [{value} ...]"}.get(str(action.nargs), value)
    shown = f"{names[-1]} {value}".strip()
    return shown if action.required else f"[{shown}]"


def _argument(action: argparse.Action) -> list[str]:
    value = "" if action.nargs == 0 else _metavar(action)
    name = f"`{f'{action.option_strings[-1]} {value}'.strip()}`" if action.option_strings else f"`{value}`"
    default = action.default
    about = action.help or ""
    nothing = default is None or default is False or default in ("", [], argparse.SUPPRESS)
    unsaid = not nothing and "default:" not in about
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(FOLDER.parents[1])  # a file of the repository, wherever it is checked out
    shown = f"`{default}`" if unsaid else ""
    if action.required and action.option_strings:
        shown = "required"
    return [name, about, shown]


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return (action.metavar or action.dest.upper()).replace("[key]", "")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; a bar in a cell is escaped."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with --check say which are stale (exit code 1)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page is stale")
    options = parser.parse_args(arguments)
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if options.check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)} in {FOLDER}; run: python docs/generate.py\n")
        return 1
    sys.stdout.write(f"{'written: ' + ', '.join(stale) if stale else 'fresh'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
