"""The validator's errors in the words of a person who edits the file, with the place in the file.

No message quotes what stands where a secret belongs: sections are named by their kind only, unknown keys without their
value, and the secret reference validates itself without quoting.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from replicator.config.base import PATTERN_WORDS
from replicator.config.problems import ABSENT, Finding, KeyPath, child_of
from replicator.config.schema import keys_of
from replicator.config.units import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic_core import ErrorDetails

_PLAIN = {
    "missing": "is required",
    "union_tag_not_found": "kind is required",
    "finite_number": "expected a finite number",
}
_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}


def explain(error: ErrorDetails, data: object) -> Finding:
    """Return one of pydantic's errors as a finding about the file's own keys."""
    path = file_path(error["loc"], data)
    return Finding(path, _message(error, path, data))


def file_path(location: Sequence[str | int], data: object) -> KeyPath:
    """Return where in `data` a location of pydantic's is: without the union tags that it contains.

    The last part is kept even though it is absent from the data: it is the key that is missing.
    """
    path: list[str | int] = []
    here = data
    for index, part in enumerate(location):
        inside = child_of(here, part)
        is_missing_key = index == len(location) - 1 and isinstance(here, dict) and here.get("kind") != part
        if inside is not ABSENT or is_missing_key:
            path.append(part)
            here = inside
    return tuple(path)


def _message(error: ErrorDetails, path: KeyPath, data: object) -> str:
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), keys_of(path[:-1], data))
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_shown_leaf(kind, error['input'])}"
    if kind == "value_error":
        return str(context["error"])
    render = _RENDERERS.get(kind)
    if render is not None:
        return f"expected {render(context)}, got {_shown_count(context, error['input'])}"
    return error["msg"][:1].lower() + error["msg"][1:]


def _choices(context: Mapping[str, object]) -> str:
    return f"one of {context['expected']}" if " or " in str(context["expected"]) else str(context["expected"])


def _items(context: Mapping[str, object], bound: str) -> str:
    return f"{context[bound]} {'item' if context[bound] == 1 else 'items'}"


_RENDERERS: dict[str, Callable[[Mapping[str, object]], str]] = {
    "enum": _choices,
    "literal_error": _choices,
    "union_tag_invalid": lambda context: f"kind to be one of {context['expected_tags']}",
    "greater_than": lambda context: f"more than {context['gt']}",
    "greater_than_equal": lambda context: f"at least {context['ge']}",
    "less_than": lambda context: f"less than {context['lt']}",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "too_short": lambda context: f"at least {_items(context, 'min_length')}",
    "too_long": lambda context: f"at most {_items(context, 'max_length')}",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: PATTERN_WORDS.get(
        str(context["pattern"]), f"text that matches {context['pattern']}"
    ),
}


def _shown_count(context: Mapping[str, object], value: object) -> str:
    if "tag" in context:
        return shown(context["tag"])
    return str(context.get("actual_length") or len(value)) if isinstance(value, (list, tuple)) else shown(value)


def _shown_leaf(kind: str, value: object) -> str:
    """Show a value, but never text where a section was expected: it may be a secret in the wrong place."""
    section_expected = kind not in {"string_type", "bool_type", "int_type", "float_type"}
    return "text" if section_expected and isinstance(value, str) else shown(value)


def _unknown_key(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"unknown key, did you mean {close[0]!r}?"
    return f"unknown key, expected one of {', '.join(known)}" if known else "unknown key"
