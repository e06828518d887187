"""Answers held against the service model, more strictly than boto3 does.

boto3 drops members that it does not know and takes any value for an enumeration, so that an answer could be wrong in
ways its callers never see; other clients are stricter.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.model import OperationModel, Shape

COMMON_ERRORS = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "RequestEntityTooLargeException",
        "SerializationException",
        "ServiceUnavailable",
        "SignatureDoesNotMatch",
        "ThrottlingException",
        "UnrecognizedClientException",
        "UnknownOperationException",
    }
)
"""Errors that all AWS services share, and no model has."""


def check_answer(operation_model: OperationModel, response_dict: dict[str, Any], **_: object) -> None:
    """Check an answer before it is parsed; a handler of boto3's event `before-parse`. Raises AssertionError."""
    assert response_dict["headers"].get("x-amzn-RequestId"), "an answer without a request id"
    assert response_dict["headers"].get("Content-Type") == "application/x-amz-json-1.1"
    document = json.loads(response_dict["body"])
    if response_dict["status_code"] < 300:
        check_document(operation_model, document)
    else:
        check_error(operation_model, response_dict["status_code"], document)


def check_document(operation: OperationModel, document: object) -> None:
    """Check the document of an answer. Raises AssertionError."""
    if operation.output_shape is None:
        assert document == {}, f"{operation.name} answers nothing, got {document!r}"
    else:
        _check(operation.output_shape, document, operation.name)


def check_error(operation: OperationModel, status: int, document: Any) -> None:
    """Check that an error is one of the operation's or one that all services share. Raises AssertionError."""
    code, message = document.get("__type"), document.get("message")
    assert isinstance(code, str), f"an error without a code: {document!r}"
    assert isinstance(message, str), f"an error without a text: {document!r}"
    shapes = {shape.name: shape for shape in operation.error_shapes}
    assert code in shapes or code in COMMON_ERRORS, f"{operation.name} has no error {code}: {message}"
    assert status < 500 or code in {"ServerException", "ServiceUnavailable"}, f"{code} with status {status}"
    extra = set(document) - {"__type", "message"}
    known = set(shapes[code].members) if code in shapes else set()
    assert extra <= known, f"{code} has no members {sorted(extra - known)}"


def _check(shape: Shape, value: Any, path: str) -> None:
    kind: Callable[[Any, Any, str], None] = _KINDS[shape.type_name]
    kind(shape, value, path)


def _structure(shape: Any, value: Any, path: str) -> None:
    assert isinstance(value, dict), f"{path} is no structure: {value!r}"
    unknown = set(value) - set(shape.members)
    assert not unknown, f"{path} has no members {sorted(unknown)}"
    missing = set(shape.required_members) - set(value)
    assert not missing, f"{path} lacks {sorted(missing)}"
    for name, member in value.items():
        _check(shape.members[name], member, f"{path}.{name}")


def _list(shape: Any, value: Any, path: str) -> None:
    assert isinstance(value, list), f"{path} is no list: {value!r}"
    for index, member in enumerate(value, 1):
        _check(shape.member, member, f"{path}.{index}")


def _map(shape: Any, value: Any, path: str) -> None:
    assert isinstance(value, dict), f"{path} is no map: {value!r}"
    for key, member in value.items():
        _check(shape.key, key, f"{path} key")
        _check(shape.value, member, f"{path}.{key}")


def _string(shape: Any, value: Any, path: str) -> None:
    assert isinstance(value, str), f"{path} is no string: {value!r}"
    assert not shape.enum or value in shape.enum, f"{path} is none of {shape.enum}: {value!r}"


def _whole(_: Any, value: Any, path: str) -> None:
    assert isinstance(value, int), f"{path} is no integer: {value!r}"
    assert not isinstance(value, bool), f"{path} is no integer: {value!r}"


def _number(_: Any, value: Any, path: str) -> None:
    assert isinstance(value, int | float), f"{path} is no number: {value!r}"
    assert not isinstance(value, bool), f"{path} is no number: {value!r}"


def _boolean(_: Any, value: Any, path: str) -> None:
    assert isinstance(value, bool), f"{path} is no boolean: {value!r}"


_KINDS: dict[str, Callable[[Any, Any, str], None]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "blob": _string,
    "integer": _whole,
    "long": _whole,
    "float": _number,
    "double": _number,
    "timestamp": _number,
    "boolean": _boolean,
}
