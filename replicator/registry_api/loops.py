"""Requests that go round in a circle are refused where they come by a second time.

Two nodes whose cache rules lead to each other, or a rule that leads to its own node by some other address, would ask
without end, each request waiting for the next. Every request to an upstream names in its `Via` all that it passed
(RFC 9110 §7.6.3), so a node knows its own again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from replicator.core.errors import InvalidInput, LoopDetected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.names import NodeId

MAX_HOPS: Final = 8
"""How many others a request may have passed."""

_MAX_LENGTH = 4096
_COMMENT = re.compile(r"\([^()]*\)")
_ENTRY = re.compile(r"[!-~]+[ \t]+[!-~]+")


class LoopGuard:
    """Knows the requests of one node, by the `Via` entry that it adds to them; without one it only counts hops."""

    def __init__(self, node: NodeId, own: str | None) -> None:
        self._node = node
        self._own = None if own is None else own.split()[-1].lower()

    def admit(self, headers: Iterable[str]) -> tuple[str, ...]:
        """Return the Via entries of a request, without their comments.

        Raises LoopDetected for one that has passed this node, or too many others, InvalidInput for one that is too long
        to read.
        """
        given = ",".join(headers)
        if not given:
            return ()
        if len(given) > _MAX_LENGTH:
            raise InvalidInput(f"expected a Via header of at most {_MAX_LENGTH} characters")
        parts = [part.strip() for part in _COMMENT.sub("", given).split(",")]
        # What is no entry is not passed on: it is somebody else's text in our requests.
        entries = tuple(part for part in parts if _ENTRY.fullmatch(part))
        if self._own is not None and any(entry.split()[-1].lower() == self._own for entry in entries):
            raise LoopDetected(f"the request has come back to node {self._node}: cache rules lead in a circle")
        if len(entries) > MAX_HOPS:
            raise LoopDetected(f"the request reached node {self._node} over more than {MAX_HOPS} others")
        return entries
