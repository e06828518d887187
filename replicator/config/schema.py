"""The format of the configuration as data: for editors, for the reference, and for suggestions in error messages."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from replicator.config.model import Settings
from replicator.config.problems import KeyPath, child_of
from replicator.config.units import (
    DURATION_OR_ANY_SCHEMA,
    DURATION_OR_OFF_SCHEMA,
    DURATION_SCHEMA,
    SIZE_SCHEMA,
    format_duration,
    format_size,
)

_Schema = Mapping[str, object]
_DURATION_PATTERNS = tuple(
    schema["pattern"] for schema in (DURATION_SCHEMA, DURATION_OR_OFF_SCHEMA, DURATION_OR_ANY_SCHEMA)
)


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """One key of the format; `[]` in its name stands for each item of a list."""

    key: str
    description: str
    kind: str
    default: object
    required: bool


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of the configuration file, with a description of every key."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_root(),
        "title": "replicator configuration",
    }


def keys_of(path: KeyPath, data: object) -> tuple[str, ...]:
    """Return the keys a section may have; which one it is may depend on its `kind`. Empty for what is no section."""
    schema: _Schema = _root()
    here = data
    for part in path:
        schema = _section(schema, here)
        child = schema.get("items") if isinstance(part, int) else _mapping(schema.get("properties")).get(part)
        schema = _mapping(child)
        here = child_of(here, part)
    return tuple(_mapping(_section(schema, here).get("properties")))


def describe_keys() -> tuple[KeyDescription, ...]:
    """Return every key of the format in the order of the file, sections before their keys."""
    return tuple(_describe(_root(), ""))


@functools.cache
def _root() -> _Schema:
    schema = _with_written_defaults(Settings.model_json_schema(mode="validation"))
    return _mapping(schema)


def _with_written_defaults(value: object) -> object:
    """Return a schema whose defaults read as in the file: `30s` for 30.0; a section's follow from those of its keys."""
    if isinstance(value, list):
        return [_with_written_defaults(one) for one in value]
    if not isinstance(value, dict):
        return value
    written = {key: _with_written_defaults(one) for key, one in value.items() if key not in {"default", "examples"}}
    written.update({key: value[key] for key in ("default", "examples") if key in value})
    default: Any = value.get("default")
    if isinstance(default, dict) or default is None:
        written.pop("default", None)
    elif value.get("pattern") in _DURATION_PATTERNS:
        written["default"] = format_duration(default)
    elif value.get("pattern") == SIZE_SCHEMA["pattern"]:
        written["default"] = format_size(default)
    return written


def _describe(schema: _Schema, prefix: str) -> Iterator[KeyDescription]:
    required = schema.get("required", ())
    assert isinstance(required, (list, tuple))  # noqa: S101 - JSON Schema says so
    for name, child in _mapping(schema.get("properties")).items():
        described = _mapping(child)
        key = f"{prefix}{name}"
        yield KeyDescription(
            key,
            _description(described),
            _kind(described),
            described.get("default"),
            name in required,
        )
        yield from _describe_inside(described, key)


def _describe_inside(schema: _Schema, key: str) -> Iterator[KeyDescription]:
    if _is_secret(schema):
        return
    for section in _sections(schema):
        is_list = section.get("type") == "array"
        inside = [section] if not is_list else list(_sections(_mapping(section.get("items"))))
        for one in inside:
            yield from _describe(one, f"{key}[]." if is_list else f"{key}.")


def _description(schema: _Schema) -> str:
    own = schema.get("description")
    return str(own if own is not None else next(_sections(schema)).get("description", ""))


def _kind(schema: _Schema) -> str:
    if _is_secret(schema):
        return "secret"
    kinds = [kind for section in _sections(schema) for kind in _kinds_of(section)]
    return " or ".join(dict.fromkeys(kinds))


def _kinds_of(section: _Schema) -> list[str]:
    examples = section.get("examples")
    if section.get("type") == "array":
        kind = _kind(_mapping(section.get("items")))
        return [f"list of {'values ' if kind.startswith('such') else ''}{kind}"]
    if "const" in section:
        return [f"`{section['const']}`"]
    if isinstance(section.get("enum"), list):
        return [f"`{choice}`" for choice in cast("list[object]", section["enum"])]
    if isinstance(examples, list):
        return [f"such as `{examples[0]}`"]
    name = str(section.get("type"))
    return [] if name == "null" else [_KIND_NAMES.get(name, name)]


_KIND_NAMES = {
    "object": "section",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}


def _is_secret(schema: _Schema) -> bool:
    return any({"env", "file"} <= set(_mapping(section.get("properties"))) for section in _sections(schema))


def _section(schema: _Schema, data: object) -> _Schema:
    """Return the one alternative of a schema that `data` is meant to be."""
    alternatives = list(_sections(schema))
    kind = data.get("kind") if isinstance(data, dict) else None
    for section in alternatives:
        declared = _mapping(_mapping(section.get("properties")).get("kind"))
        if declared and declared.get("const") == kind:
            return section
    sections = [section for section in alternatives if section.get("type") in {"object", "array"}]
    return sections[0] if sections else {}


def _sections(schema: _Schema) -> Iterator[_Schema]:
    """Follow references and unions to the alternatives a value may be."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        definitions = _mapping(_root().get("$defs"))
        yield from _sections(_mapping(definitions[reference.rsplit("/", 1)[1]]))
        return
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(alternatives, list):
        for alternative in alternatives:
            yield from _sections(_mapping(alternative))
        return
    yield schema


def _mapping(value: object) -> _Schema:
    return cast("_Schema", value) if isinstance(value, dict) else {}
