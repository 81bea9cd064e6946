"""What is known of images beside their pixels: a pattern over paths, JSON files, tags of objects."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from morphad.base.errors import BadInputError
from morphad.data.source.layouts import some
from morphad.settings import METADATA_FIELDS, IngestSettings, MetadataSettings

Fields = dict[str, str]  # of one image; every field of METADATA_FIELDS that was found


def sidecar_name(name: str) -> str:
    """The JSON file beside an image."""
    return f"{name.rpartition('.')[0]}.json"


def from_pattern(names: Sequence[str], settings: MetadataSettings, root: str) -> Iterator[Fields]:
    """Fields of each image by the pattern, searched for in its path below the root.

    Raises:
        BadInputError: The pattern is not found in a path.
    """
    pattern = re.compile(settings.pattern)
    matches = [pattern.search(name) for name in names]
    strange = [name for name, match in zip(names, matches, strict=True) if match is None]
    if strange:
        raise BadInputError(
            f"{root}: {some(strange)} are not named as ingest.metadata.pattern ({settings.pattern}) says; "
            "correct the pattern, or move them elsewhere"
        )
    for match in matches:
        yield {} if match is None else {field: value or "" for field, value in match.groupdict().items()}


def from_sidecar(name: str, text: bytes | None, settings: MetadataSettings, root: str) -> Fields:
    """Fields of an image by the JSON beside it; a key that is not there gives none.

    Args:
        name: Of the JSON file, for messages.
        text: What is in it; None where there is no such file.
        settings: Which keys to read.
        root: The folder or prefix, for messages.

    Raises:
        BadInputError: The file does not hold a JSON object, or a value is neither text nor number.
    """
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadInputError(f"{root}: {name} is no JSON ({error}); correct it, or remove it") from error
    if not isinstance(content, dict):
        raise BadInputError(f'{root}: {name} holds {_kind(content)}, expected an object such as {{"lot": "L7"}}')
    found: Fields = {}
    for field, key in settings.sidecar.items():
        value = content.get(key, _at(content, key))
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadInputError(f"{root}: {name}: {key} holds {_kind(value)}, expected text or a number for {field}")
        found[field] = str(value).strip()
    return found


def from_tags(tags: Mapping[str, str], settings: MetadataSettings) -> Fields:
    """Fields of an image by its object's tags; a tag that is not there gives none."""
    return {field: tags[tag].strip() for field, tag in settings.tags.items() if tag in tags}


def checked(name: str, fields: Fields, settings: MetadataSettings, root: str) -> Fields:
    """The fields of an image, every one there, its label one of good and defect where metadata give labels.

    Raises:
        BadInputError: No label, another word, a label that contradicts the kind of defect, or a time that is none.
    """
    whole = {field: fields.get(field, "") for field in METADATA_FIELDS}
    if any(not character.isprintable() for value in whole.values() for character in value):
        raise BadInputError(f"{root}: {name}: its metadata hold characters that cannot be printed; correct them")
    if settings.fields & {"label", "defect"}:
        whole["label"], whole["defect"] = _label(whole, settings, f"{root}: {name}")
    if whole["acquired"]:
        try:
            datetime.fromisoformat(whole["acquired"])
        except ValueError:
            raise BadInputError(
                f"{root}: {name}: acquired {whole['acquired']!r}; expected ISO 8601, such as 2025-03-31T14:05:00"
            ) from None
    return whole


def _label(fields: Fields, settings: MetadataSettings, where: str) -> tuple[str, str]:
    words = {"good": "good", "defect": "defect", **settings.labels}
    word, defect = fields["label"], fields["defect"]
    if "label" not in settings.fields:
        return ("good", "") if defect in {"", "good"} else ("defect", defect)
    if not word:
        raise BadInputError(
            f"{where}: has no label; give it one where ingest.metadata says, or keep images without a verdict elsewhere"
        )
    if word not in words:
        raise BadInputError(f"{where}: label {word!r}; expected {', '.join(words)} (ingest.metadata.labels names more)")
    if words[word] == "good":
        if defect not in {"", "good"}:
            raise BadInputError(f"{where}: defect {defect!r} of an image labelled good; correct one of them")
        return "good", ""
    return "defect", defect or "defect"


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", bool: "true or false", str: "text", type(None): "null"}.get(
        type(value), "a number"
    )


def gather(
    names: Sequence[str],
    settings: IngestSettings,
    *,
    sidecars: Callable[[Sequence[str]], Iterator[bytes | None]],
    tags: Callable[[Sequence[str]], Iterator[Mapping[str, str]]],
) -> list[Fields]:
    """The fields of images, each read from where the settings say.

    Args:
        names: Of the images below the root.
        settings: Of the line.
        sidecars: Gives the contents of JSON files by their names, in order; None where there is none.
        tags: Gives the tags of objects by their names, in order.
    """
    metadata, root = settings.metadata, settings.path
    if not metadata.fields:
        return [{} for _ in names]
    found: list[Fields] = [{} for _ in names]
    if metadata.pattern:
        for fields, own in zip(found, from_pattern(names, metadata, root), strict=True):
            fields.update(own)
    if metadata.sidecar:
        beside = [sidecar_name(name) for name in names]
        for fields, name, text in zip(found, beside, sidecars(beside), strict=True):
            fields.update(from_sidecar(name, text, metadata, root))
    if metadata.tags:
        for fields, given in zip(found, tags(names), strict=True):
            fields.update(from_tags(given, metadata))
    whole, problems = [], []
    for name, fields in zip(names, found, strict=True):
        try:
            whole.append(checked(name, fields, metadata, root))
        except BadInputError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BadInputError("\n  ".join(problems[:3]) + more)
    return whole
