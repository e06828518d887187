"""How a request proves who we are: what an authorizer is, one for registries, and one for nodes between themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from replicator.upstream.token_service import ChallengeAuthorizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.core.names import RepositoryName

__all__ = ["Authorizer", "BearerAuthorizer", "ChallengeAuthorizer"]


class Authorizer(Protocol):
    """Supplies the Authorization of requests to one upstream.

    `repository` is None for a request that concerns none, and `mount_from` is the repository that a blob is to be
    mounted from, which has to be readable as well.
    """

    async def headers(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        *,
        mount_from: RepositoryName | None = None,
    ) -> Mapping[str, str]:
        """Return the headers to send; none when nothing has been asked for yet. Raises UpstreamError."""
        ...

    async def challenged(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        www_authenticate: str,
        *,
        mount_from: RepositoryName | None = None,
        refused: Mapping[str, str],
    ) -> bool:
        """Answer a 401 to a request sent with the headers `refused`; return whether to send it once more.

        Raises UpstreamError when the token service fails, UpstreamDenied when it must not see our credentials.
        """
        ...

    @property
    def paused_for(self) -> float:
        """Seconds for which no new token can be had, because the token service asked us to slow down."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...


class BearerAuthorizer:
    """Sends a token that we make ourselves, one for each request: how a node speaks to a peer."""

    def __init__(self, make_token: Callable[[], str]) -> None:
        self._make_token = make_token

    async def headers(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        *,
        mount_from: RepositoryName | None = None,
    ) -> Mapping[str, str]:
        """Return a new token."""
        return {"Authorization": f"Bearer {self._make_token()}"}

    async def challenged(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        www_authenticate: str,
        *,
        mount_from: RepositoryName | None = None,
        refused: Mapping[str, str],
    ) -> bool:
        """Return False: a peer that refuses a fresh token refuses the next one as well."""
        return False

    @property
    def paused_for(self) -> float:
        """No time: we make the tokens."""
        return 0.0

    async def close(self) -> None:
        """Do nothing: there is nothing under way."""
