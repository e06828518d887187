"""Every secret of a configuration: what it names is resolved at start, what may change is found when it is needed."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from replicator.config.secrets import SecretRef, resolve_secret
from replicator.core import texts
from replicator.core.errors import ConfigurationError, SecretInaccessible, SecretNotFound, SecretUndecipherable
from replicator.registry.identities import AccessKey, Identity
from replicator.registry_api.authentication import User
from replicator.upstream.credential_helpers import HelperCredentials
from replicator.upstream.credentials import KeptCredentials, ReadAgain
from replicator.upstream.docker_config import DockerConfigCredentials, registry_keys
from replicator.upstream.ecr_credentials import AwsIdentity, EcrCredentials
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.config.upstreams import AwsCredentialSettings, CredentialSettings, PairSettings, RemoteSettings
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.upstream.credentials import Search
    from replicator.upstream.endpoint import CredentialSource


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
        """Return who we are to somebody else's registry, where that is written down."""
        known = remote.credentials
        if known is None or known.username is None or known.password is None:
            return None
        return Credentials(known.username, self._revealed(known.password))

    def credential_source(self, remote: RemoteSettings, clock: Clock) -> CredentialSource | None:
        """Return what finds out who we are to somebody else's registry, where that may change.

        Raises ConfigurationError when what it needs is not installed.
        """
        search = None if remote.credentials is None else self._search(remote, remote.credentials, clock)
        return None if search is None else KeptCredentials(remote.name, search, clock)

    def _search(self, remote: RemoteSettings, known: CredentialSettings, clock: Clock) -> Search | None:
        name = remote.name
        if known.docker_config is not None:
            return DockerConfigCredentials(name, known.docker_config, remote.url, self._environ)
        if known.helper is not None:
            return HelperCredentials(name, known.helper, registry_keys(remote.url), self._environ)
        if known.aws is not None:
            return EcrCredentials(name, self._identity(known.aws), clock)
        is_file = known.password is not None and known.password.file is not None
        return ReadAgain(name, partial(self._pair_of, remote)) if is_file else None

    def _pair_of(self, remote: RemoteSettings) -> Credentials:
        found = self.credentials(remote)
        assert found is not None  # noqa: S101 - asked only where there is a password
        return found

    def _identity(self, known: AwsCredentialSettings) -> AwsIdentity:
        def revealed(ref: SecretRef | None) -> str | None:
            return None if ref is None else self._revealed(ref)

        return AwsIdentity(
            known.region,
            revealed(known.access_key_id),
            revealed(known.secret_access_key),
            revealed(known.session_token),
            known.endpoint,
        )

    def rule_credentials(self, settings: Settings, arn: str) -> Credentials:
        """Return the credentials in a secret that cache rules name; reads a file.

        Raises SecretNotFound, SecretInaccessible, SecretUndecipherable.
        """
        known = next((one for one in settings.secrets if one.arn == arn), None)
        if known is None:
            raise SecretNotFound(texts.secret_not_found(arn))
        try:
            return Credentials(known.username, self._revealed(known.access_token))
        except ConfigurationError as error:
            kind = SecretUndecipherable if known.access_token.is_there(self._environ) else SecretInaccessible
            raise kind(f"the secret with ARN '{arn}' cannot be used: {error}") from error

    def rule_credential_source(self, settings: Settings, name: str, arn: str, clock: Clock) -> CredentialSource:
        """Return what finds the credentials in a secret that a cache rule names."""

        def read() -> Credentials:
            try:
                return self.rule_credentials(settings, arn)
            except (SecretNotFound, SecretInaccessible, SecretUndecipherable) as error:
                raise ConfigurationError(str(error)) from error

        return KeptCredentials(name, ReadAgain(name, read), clock)

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

    def access_keys(self, settings: Settings) -> tuple[AccessKey, ...]:
        """Return the access keys of all identities; raises ConfigurationError. Reads files."""
        return tuple(
            AccessKey(
                key.id,
                identity,
                self._revealed(key.secret),
                None if key.session_token is None else self._revealed(key.session_token),
            )
            for one in settings.identities
            for identity in [Identity(one.arn.text, one.arn.account, one.to_policies(), one.tags)]
            for key in one.access_keys
        )

    def value(self, ref: SecretRef) -> str:
        """Return what a reference names, for what is built at start; raises ConfigurationError."""
        return self._revealed(ref)

    def _revealed(self, ref: SecretRef) -> str:
        return resolve_secret(ref, self._environ).reveal()
