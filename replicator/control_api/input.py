"""The members of a request, which were checked against the model before: each is read as the kind that it has there."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Input:
    """A structure of the request. Reading a member as another kind than the model's is a mistake of the program."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, object]) -> None:
        self._members = members

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def text(self, name: str) -> str:
        """Return a required string."""
        return cast("str", self._members[name])

    def find_text(self, name: str) -> str | None:
        """Return a string, or None when it was left out."""
        return cast("str | None", self._members.get(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; empty when it was left out."""
        return tuple(cast("Sequence[str]", self._members.get(name, ())))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        return bool(self._members.get(name, default))

    def number(self, name: str) -> int:
        """Return a required integer."""
        return cast("int", self._members[name])

    def find_number(self, name: str) -> int | None:
        """Return an integer, or None when it was left out."""
        return cast("int | None", self._members.get(name))

    def blob(self, name: str) -> bytes:
        """Return bytes; they travel in Base64, which was checked."""
        return base64.b64decode(self.text(name))

    def structure(self, name: str) -> Input:
        """Return a required structure."""
        return Input(cast("Mapping[str, object]", self._members[name]))

    def find_structure(self, name: str) -> Input | None:
        """Return a structure, or None when it was left out."""
        return self.structure(name) if name in self._members else None

    def structures(self, name: str) -> tuple[Input, ...]:
        """Return a list of structures; empty when it was left out."""
        return tuple(Input(one) for one in cast("Sequence[Mapping[str, object]]", self._members.get(name, ())))
