"""Secrets by reference: the file names where a secret is, never the secret itself.

A resolved secret hides itself: its text, its representation and every error about it say nothing of its value. A secret
written literally is refused, so that a configuration file can be committed, shown and pasted without a second look.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from replicator.config.base import Model, resolve_path
from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REFUSAL = "a secret is never written here: use {env: NAME} or {file: path}"
MAX_SECRET_BYTES = 64 * 1024


class Secret:
    """A secret value that shows itself only to `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value; call it at the last moment, where it is used."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not serialised")


def _environment_name(value: object) -> object:
    if not isinstance(value, str) or _ENVIRONMENT_NAME.fullmatch(value) is None:
        raise ValueError("expected the name of an environment variable: letters, digits and '_'")
    return value


def _secret_path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\n" in value:
        raise ValueError("expected the path of a file")
    return resolve_path(value, info)


class SecretRef(Model):
    """Where a secret is: an environment variable or a file, one of them."""

    env: Annotated[str | None, BeforeValidator(_environment_name), WithJsonSchema({"type": "string"})] = None
    """Name of the environment variable that holds the secret."""
    file: Annotated[Path | None, BeforeValidator(_secret_path), WithJsonSchema({"type": "string"})] = None
    """Path of the file that holds the secret; one line break at its end is ignored."""

    sources: ClassVar[frozenset[str]] = frozenset({"env", "file"})

    @model_validator(mode="before")
    @classmethod
    def _refuse_literals(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise ValueError(_REFUSAL)  # noqa: TRY004 - pydantic reports ValueError
        if len(data.keys() & cls.sources) != 1:
            raise ValueError(f"expected exactly one of env and file; {_REFUSAL}")
        return data

    def __str__(self) -> str:
        return f"environment variable {self.env}" if self.env is not None else f"file {self.file}"

    @property
    def literal(self) -> str | None:
        """The secret itself, where the file may say it."""
        return None

    def is_there(self, environ: Mapping[str, str]) -> bool:
        """Tell whether there is anything where the secret is said to be, whatever it may be."""
        if self.file is not None:
            return self.file.is_file()
        return self.literal is not None or self.env in environ


class DevelopmentSecretRef(SecretRef):
    """Where a secret is, or the secret itself, for nodes that nobody but this machine reaches."""

    sources: ClassVar[frozenset[str]] = frozenset({"env", "file", "insecure"})

    insecure: Annotated[str | None, Field(min_length=1, max_length=1024, repr=False)] = None
    """The secret itself: it is no secret, and every node of the file must listen on loopback."""

    def __str__(self) -> str:
        return super().__str__() if self.insecure is None else "the secret in the file"

    @property
    def literal(self) -> str | None:
        """The secret itself, where the file says it."""
        return self.insecure


def resolve_secret(ref: SecretRef, environ: Mapping[str, str]) -> Secret:
    """Return the secret that `ref` names; raise ConfigurationError, without the value, when there is none.

    A file is read at once, in the caller's thread: call this at start, not while serving.
    """
    value = _find(ref, environ)
    if value is None:
        raise ConfigurationError(f"{ref} is not set")
    if not value:
        raise ConfigurationError(f"{ref} is empty")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        # How the operating system's bytes arrive that are no UTF-8.
        raise ConfigurationError(f"{ref} is not UTF-8 text")
    if any(character in value for character in "\0\r\n"):
        raise ConfigurationError(f"{ref} holds more than one line")
    return Secret(value)


def _find(ref: SecretRef, environ: Mapping[str, str]) -> str | None:
    if ref.literal is not None:
        return ref.literal
    return environ.get(ref.env) if ref.env is not None else _read(ref)


def _read(ref: SecretRef) -> str:
    assert ref.file is not None  # noqa: S101 - the model has one of the two
    try:
        with ref.file.open("rb") as opened:
            data = opened.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{ref} cannot be read: {error.strerror or 'input/output error'}") from error
    if len(data) > MAX_SECRET_BYTES:
        raise ConfigurationError(f"{ref} is larger than {MAX_SECRET_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Not chained: the decoder's error carries the bytes.
        raise ConfigurationError(f"{ref} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")
