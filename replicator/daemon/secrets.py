"""Every secret of a configuration, resolved at start, before anything listens."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from replicator.config.secrets import SecretRef, resolve_secret
from replicator.registry_api.authentication import User
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.config.upstreams import PairSettings, RemoteSettings
    from replicator.core.names import NodeId


class SecretStore:
    """Resolves the references of a configuration to values, at the last moment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def peer_secret(self, settings: Settings) -> bytes:
        """Return the secret shared with peers; a random one when all of them are in this process."""
        if settings.peer_secret is None:
            return secrets.token_bytes(32)
        return self._revealed(settings.peer_secret).encode()

    def pair_secrets(self, settings: Settings) -> dict[NodeId, bytes]:
        """Return the secrets that are shared with one peer alone."""
        return {peer.id: self._revealed(peer.secret).encode() for peer in settings.peers if peer.secret is not None}

    def credentials(self, remote: RemoteSettings) -> Credentials | None:
        """Return who we are to somebody else's registry."""
        known = remote.credentials
        if known is None or known.username is None or known.password is None:
            return None
        return Credentials(known.username, self._revealed(known.password))

    def pair(self, known: PairSettings) -> Credentials:
        """Return who we are to a proxy."""
        return Credentials(known.username, self._revealed(known.password))

    def users(self, node: NodeSettings) -> tuple[User, ...]:
        """Return a node's users."""
        if node.auth is None:
            return ()
        return tuple(
            User.with_password(user.name, self._revealed(user.password), user.to_grants()) for user in node.auth.users
        )

    def _revealed(self, ref: SecretRef) -> str:
        return resolve_secret(ref, self._environ).reveal()
