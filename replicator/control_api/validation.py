"""A request's document held against the service model, as ECR does it and botocore does not (ECR §5.2).

First everything must have the types of the model, or nothing can be said of it: SerializationException. Then the first
member that breaks a constraint is answered with InvalidParameterException. A value is measured before a pattern is
matched against it. Unknown members are passed over, so that newer clients are served; null is the same as absent.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, NoReturn, cast

from replicator.control_api.errors import EcrError, invalid_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicator.control_api.call import Document
    from replicator.control_api.model import Shape

_BITS = {"integer": 31, "long": 63}
_MAX_ELEMENTS = 10_000
"""Elements of a list that has no maximum of its own: more than any that has one."""

_UNMATCHED = frozenset({"UploadId"})
"""Shapes whose pattern is not asked for: an upload that cannot be is answered as one that is not there."""

_ENUM_ORDERS = {
    "ImageTagMutability": ("IMMUTABLE", "MUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION"),
}
"""Enumerations that ECR prints in another order than the model's."""


def validated(shape: Shape, document: Document) -> Document:
    """Return the members of a request that the model knows and that have a value; raises EcrError."""
    members = _structure(shape, document)
    _check_members(shape, members, "")
    return members


# Types: what a document of JSON says, as the model's types.


def _typed(shape: Shape, value: object) -> object:
    return _TYPES[shape.type](shape, value)


def _structure(shape: Shape, value: object) -> Document:
    if not isinstance(value, dict):
        _refuse(value, "Unexpected field type")
    known = ((name, member, value.get(name)) for name, member in shape.members.items())
    return {name: _typed(member, found) for name, member, found in known if found is not None}


def _list(shape: Shape, value: object) -> list[object]:
    if not isinstance(value, list):
        _refuse(value, "Expected list or null")
    if len(value) > _MAX_ELEMENTS:
        raise EcrError("SerializationException", "Too many elements")
    element = cast("Shape", shape.element)
    return [None if one is None else _typed(element, one) for one in value]


def _map(shape: Shape, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(value, "Expected map or null")
    element = cast("Shape", shape.element)
    return {_string(shape, name): _typed(element, one) for name, one in value.items() if one is not None}


def _string(_: Shape, value: object) -> str:
    if not isinstance(value, str):
        _refuse(value, f"{_kind(value)} can not be converted to String")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise EcrError("SerializationException", "Invalid UTF-8") from error
    return value


def _blob(shape: Shape, value: object) -> str:
    if not isinstance(value, str):
        _refuse(value, f"{_kind(value)} can not be converted to Blob")
    try:
        base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as error:
        raise EcrError("SerializationException", f"{shape.name} is not valid Base64") from error
    return value


def _whole(shape: Shape, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(value, f"{_kind(value)} can not be converted to {shape.type.capitalize()}")
    if abs(value) >= 1 << _BITS[shape.type]:
        raise EcrError("SerializationException", f"NUMBER_VALUE can not be converted to {shape.type.capitalize()}")
    return value


def _number(shape: Shape, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(value, f"{_kind(value)} can not be converted to {shape.type.capitalize()}")
    return float(value)


def _boolean(_: Shape, value: object) -> bool:
    if not isinstance(value, bool):
        _refuse(value, f"{_kind(value)} can not be converted to Boolean")
    return value


_TYPES: dict[str, Callable[[Shape, object], object]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "blob": _blob,
    "integer": _whole,
    "long": _whole,
    "double": _number,
    "timestamp": _number,
    "boolean": _boolean,
}


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    return "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"


def _refuse(value: object, text: str) -> NoReturn:
    """Say of what kind a value is that has no place there, as AWS's own parser does."""
    if isinstance(value, dict):
        text = "Start of structure or map found where not expected."
    elif isinstance(value, list):
        text = "Start of list found where not expected"
    raise EcrError("SerializationException", text)


# Constraints: the first one that is broken.


def _check_members(shape: Shape, members: Document, path: str) -> None:
    for name, member in shape.members.items():
        here = path + name[0].lower() + name[1:]
        if name in members:
            _check(member, members[name], here)
        elif name in shape.required:
            raise invalid_parameter(here, "Member must not be null")


def _check(shape: Shape, value: object, path: str) -> None:
    broken = next(_broken(shape, value, "must satisfy regular expression '{}'"), None)
    if broken is not None:
        raise invalid_parameter(path, broken)
    if shape.type == "structure":
        _check_members(shape, cast("Document", value), f"{path}.")
    elif shape.type == "list":
        _check_elements(cast("Shape", shape.element), cast("list[object]", value), path)


def _check_elements(shape: Shape, elements: list[object], path: str) -> None:
    for number, element in enumerate(elements, 1):
        if element is None:
            raise invalid_parameter(f"{path}.{number}.member", "Member must not be null")
        if shape.type in {"structure", "list"}:
            _check(shape, element, f"{path}.{number}.member")
        elif broken := list(_broken(shape, element, "Member must satisfy regular expression pattern: {}")):
            # Of plain elements ECR names the list, and all constraints that the element breaks.
            raise invalid_parameter(path, f"Member must satisfy constraint: [{', '.join(broken)}]")


def _broken(shape: Shape, value: object, pattern_text: str) -> Iterator[str]:
    """Yield the constraints that a value breaks; a pattern is matched only with what is not too long."""
    measured = _MEASURES.get(shape.type)
    if measured is None:
        return
    what, measure = measured
    size = measure(value)
    too_large = shape.maximum is not None and size > shape.maximum
    if too_large:
        yield f"Member must have {what} less than or equal to {shape.maximum}"
    if shape.minimum is not None and size < shape.minimum:
        yield f"Member must have {what} greater than or equal to {shape.minimum}"
    if isinstance(value, str) and shape.type == "string" and not too_large:
        yield from _broken_text(shape, value, pattern_text)


def _broken_text(shape: Shape, value: str, pattern_text: str) -> Iterator[str]:
    if shape.pattern is not None and shape.name not in _UNMATCHED and not shape.fits(value):
        yield pattern_text.format(shape.pattern)
    if shape.enum and value not in shape.enum:
        yield f"Member must satisfy enum value set: [{', '.join(_ENUM_ORDERS.get(shape.name, shape.enum))}]"
    if "\0" in value:
        yield "Member must not contain the character U+0000"


def _length(value: object) -> int:
    return len(cast("str", value))


def _blob_length(value: object) -> int:
    text = cast("str", value)
    return len(text) // 4 * 3 - text[-2:].count("=")


def _amount(value: object) -> int:
    return cast("int", value)


_MEASURES: dict[str, tuple[str, Callable[[object], int]]] = {
    "string": ("length", _length),
    "blob": ("length", _blob_length),
    "list": ("length", _length),
    "integer": ("value", _amount),
    "long": ("value", _amount),
}
