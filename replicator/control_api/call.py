"""One request to the API: what is asked, by whom, of which registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.control_api.input import Input
    from replicator.control_api.services import EcrRegistry
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.identities import AccessKey

Document = dict[str, object]
"""A structure of the answer, ready for JSON: times are Unix seconds, and members without a value are left out."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation with its input, checked against the model, and the caller, who may ask it."""

    operation: str
    input: Input
    caller: Principal
    registry: EcrRegistry
    key: AccessKey | None = None
    """With which the request was signed; None where signatures are not looked at."""
    origin: str | None = None
    """The address that the client used, such as `http://registry.example:5000`; None where it says nothing usable."""
    registries: Mapping[NodeId, EcrRegistry] = field(default_factory=dict)
    """All that this process runs."""

    @property
    def repository(self) -> RepositoryName:
        """The repository that is asked about, as the node knows it; the model's pattern was checked."""
        return self.registry.stored(self.input.text("repositoryName"))

    @property
    def now(self) -> float:
        """The time, in Unix seconds."""
        return self.registry.node.clock.now()

    @property
    def place(self) -> Document:
        """The members with which most answers begin."""
        return {"registryId": self.registry.names.id.account, "repositoryName": self.input.text("repositoryName")}


Handler = Callable[[Call], Awaitable[Document]]
"""Answers an operation; raises EcrError or an error of the core, and has changed nothing then."""


def present(**members: object) -> Document:
    """Return the members that have a value."""
    return {name: value for name, value in members.items() if value is not None}
