"""What is wrong with a settings value, in a sentence: the key as it was written, the value, and what is allowed."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from morphad.base.errors import BadInputError
from morphad.base.wording import did_you_mean


class SettingsError(BadInputError):
    """A key or value in the settings that is not allowed."""


def explain(
    error: ValidationError, model: type[BaseModel], line: str | None = None, own: dict[str, Any] | None = None
) -> str:
    """The first thing wrong with a model's values: key, value, what is allowed.

    Args:
        error: What pydantic found.
        model: The model that the values were meant for.
        line: The product line whose values they are; None for a file without lines.
        own: What the line itself holds: keys are then named where they were written, lines.NAME.* or defaults.*.
    """
    own = own or {}
    first = error.errors(include_url=False)[0]
    unknown = first["type"] in {"extra_forbidden", "invalid_key"}
    short = first["type"] == "missing" and isinstance(first["loc"][-1], int)  # a list with too few items
    path = tuple(part for part in first["loc"] if part != "[key]")  # of a mapping: named already
    path = path[:-1] if short else path
    keys = [str(key) for key in path] if unknown else [key for key in path if isinstance(key, str)]
    place = ".".join(keys)
    if line is not None:
        if first["type"] == "missing" and not short:  # where it should be
            written = len(keys) <= 2 or _holds(own, keys[:-1])
        else:
            written = _holds(own, keys)
        place = f"lines.{line}.{place}" if written else f"defaults.{place}"
    if unknown:
        allowed = _fields_at(model, keys[:-1])
        meant = f"{did_you_mean(keys[-1], allowed)} allowed here: {', '.join(allowed)}".lstrip()
        return f"{place}: unknown key; {meant}"
    if short:
        return f"{place} = {first['input']!r}: too few items{_describe(model, path, parenthesised=True)}"
    if first["type"] == "missing":
        return f"{place}: missing; {_describe(model, path)}"
    place += "".join(f"[{item}]" for item in path if isinstance(item, int))
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    message = message.replace("Tuple", "List").replace(" after validation", "")
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping of keys to values", message)
    if isinstance(first["input"], dict) and first["type"] == "value_error":
        return f"{place}: {message}"
    return f"{place} = {first['input']!r}: {message}{_describe(model, path, parenthesised=True)}"


def _holds(own: Any, keys: list[str]) -> bool:
    """Whether a line's own overrides hold the key."""
    for key in keys:
        below = {str(name): value for name, value in own.items()} if isinstance(own, dict) else {}
        if key not in below:
            return False
        own = below[key]
    return True


def _fields_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    for key in keys:
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == key), None)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if nested is None:
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _describe(model: type[BaseModel], path: Sequence[str | int], parenthesised: bool = False) -> str:
    """The field's range and description, for the end of a message."""
    schema: dict[str, Any] = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    node: dict[str, Any] = schema
    description: str | None = None
    for key in path:
        options = [node, *node.get("anyOf", ()), *node.get("allOf", ())]
        if isinstance(key, int):  # an item of a list, described by its list
            node = _item(options)
            continue
        references = [definitions[o["$ref"].split("/")[-1]] for o in options if "$ref" in o]
        node = next((o["properties"][key] for o in [*options, *references] if key in o.get("properties", {})), {})
        description = node.get("description")
    item = _item([node, *node.get("anyOf", ())])
    options = [item or node, *node.get("anyOf", ())]
    limits = [
        f"{symbol} {value}"
        for word, symbol in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        for value in [next((o[word] for o in options if word in o), None)]
        if value is not None
    ]
    allowed = " and ".join(limits) or (", ".join(item.get("enum", ())) if item else "")
    parts = [f"allowed: {'each ' if item else ''}{allowed}"] if allowed else []
    if description:
        parts.append(description)
    if not parts:
        return ""
    return f" ({'; '.join(parts)})" if parenthesised else "; ".join(parts)


def _item(options: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a list's items; {} for what is no list."""
    items = (item for option in options for item in [*option.get("prefixItems", ()), option.get("items")])
    return next((item for item in items if item), {})
