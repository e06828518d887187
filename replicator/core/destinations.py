"""Where images are replicated to: another node, or any registry that speaks the distribution protocol.

Written `123456789012/eu-west-1` for a node and `registry:harbor` for a registry named in the configuration, in job
lanes, statuses, metrics and logs alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from replicator.core.errors import InvalidInput
from replicator.core.names import NodeId, parse_node

_PREFIX = "registry:"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, order=True)
class RegistryRef:
    """A registry of somebody else, by its name in the configuration."""

    name: str

    def __str__(self) -> str:
        return f"{_PREFIX}{self.name}"


DestinationId = NodeId | RegistryRef


def parse_destination(text: str) -> DestinationId:
    """Return `account/region` or `registry:name` as a destination; raise InvalidInput for anything else."""
    if not text.startswith(_PREFIX):
        return parse_node(text)
    name = text.removeprefix(_PREFIX)
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"expected registry: and a name of lower-case letters, digits and '-', got {text[:80]!r}")
    return RegistryRef(name)
