"""Every secret of a configuration: what it names is resolved at start, what may change is found when it is needed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.config.references import MIN_SIGNING_SECRET
from replicator.config.secrets import Secret, SecretRef, resolve_secret
from replicator.core import texts
from replicator.core.errors import ConfigurationError, SecretInaccessible, SecretNotFound, SecretUndecipherable
from replicator.registry.identities import AccessKey, Identity
from replicator.registry_api.users import User
from replicator.upstream.credential_helpers import HelperCredentials
from replicator.upstream.credentials import KeptCredentials, ReadAgain
from replicator.upstream.docker_config import DockerConfigCredentials, registry_keys
from replicator.upstream.ecr_credentials import AwsIdentity, EcrCredentials
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from replicator.config.identities import AccessKeySettings
    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.config.upstreams import AwsCredentialSettings, CredentialSettings, PairSettings, RemoteSettings
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.upstream.credentials import Search
    from replicator.upstream.endpoint import CredentialSource


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may use which node, by the credentials that are there now. `gone` says what is missing of the others."""

    access_keys: tuple[AccessKey, ...]
    users: Mapping[NodeId, tuple[User, ...]]
    gone: tuple[str, ...]
    secrets: tuple[Secret, ...]


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

    def callers(self, settings: Settings) -> Callers:
        """Return who may use which node now: whose secret is not there, or cannot be used, is nobody any more.

        Raises ConfigurationError for policies that cannot be used. Reads files.
        """
        reader = _Reader(self._environ)
        keys: list[AccessKey] = []
        for one in settings.identities:
            identity = Identity(one.arn.text, one.arn.account, one.to_policies(), one.tags)
            keys += reader.access_keys(identity, one.access_keys)
        users = {node.id: tuple(reader.users(node)) for node in settings.nodes}
        return Callers(tuple(keys), users, tuple(reader.gone), tuple(reader.secrets))

    def value(self, ref: SecretRef) -> str:
        """Return what a reference names, for what is built at start; raises ConfigurationError."""
        return self._revealed(ref)

    def _revealed(self, ref: SecretRef) -> str:
        return resolve_secret(ref, self._environ).reveal()


class _Reader:
    """Reads credentials, and remembers whose are gone."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.gone: list[str] = []
        self.secrets: list[Secret] = []

    def access_keys(self, identity: Identity, keys: Iterable[AccessKeySettings]) -> Iterator[AccessKey]:
        for key in keys:
            what = f"access key {key.id} of {identity.arn}"
            secret = self._read(key.secret, what, MIN_SIGNING_SECRET)
            if secret is not None and key.session_token is None:
                yield AccessKey(key.id, identity, secret)
            elif secret is not None and key.session_token is not None:
                token = self._read(key.session_token, f"session token of {what}")
                if token is not None:
                    yield AccessKey(key.id, identity, secret, token)

    def users(self, node: NodeSettings) -> Iterator[User]:
        for user in () if node.auth is None else node.auth.users:
            password = self._read(user.password, f"password of user {user.name} of {node.id}")
            if password is not None:
                yield User.with_password(user.name, password, user.to_grants())

    def _read(self, ref: SecretRef, what: str, least: int = 1) -> str | None:
        try:
            secret = resolve_secret(ref, self._environ)
        except ConfigurationError as error:
            self.gone.append(f"{what}: {error}")
            return None
        if ref.literal is None:
            self.secrets.append(secret)
            if len(secret.reveal()) < least:
                self.gone.append(f"{what}: expected a secret of at least {least} characters in {ref}")
                return None
        return secret.reveal()
