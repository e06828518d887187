"""A request of a user about replication: who asks, and what that user may see or cause."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.actions import Action
from replicator.registry.access import authorize, authorize_everywhere

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of somebody who may ask something. `id` is the one in its path, if there is one."""

    request: web.BaseRequest
    principal: Principal
    id: str = ""

    def authorize(self, action: Action, repository: RepositoryName | None) -> None:
        """Return if the caller may do `action` in a repository, or in all of them (None); raises an AccessError."""
        if repository is not None:
            authorize(self.principal, action, repository)
        else:
            authorize_everywhere(self.principal, action)

    def may_pull(self, repository: RepositoryName) -> bool:
        """Tell whether the caller may know of a repository."""
        return self.principal.may(Action.DESCRIBE_STATUS, repository)


Page = Callable[[Asked], Awaitable[web.StreamResponse]]

Pages = Mapping[str, Mapping[str, Page]]
"""What answers a path and a method; `{id}` stands for the one part of a path that is not fixed."""


def answer(body: Mapping[str, object], status: int = 200) -> web.Response:
    """Return a JSON answer."""
    text = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(status=status, body=text, headers={"Content-Type": "application/json"})
