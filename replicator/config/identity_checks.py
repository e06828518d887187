"""What the identities of a file owe each other and its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.config.problems import Finding, repeated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.config.model import Settings
    from replicator.config.problems import KeyPath
    from replicator.config.secrets import DevelopmentSecretRef

TOKEN_USER = "AWS"  # noqa: S105 - a user's name
"""Who logs in with an authorization token."""


def _unique(settings: Settings) -> Iterator[Finding]:
    identities = settings.identities
    yield from repeated((("identities", i, "arn"), one.arn.text) for i, one in enumerate(identities))
    yield from repeated(
        (("identities", i, "access_keys", j, "id"), key.id)
        for i, one in enumerate(identities)
        for j, key in enumerate(one.access_keys)
    )


def _literals(settings: Settings) -> Iterator[Finding]:
    """Yield secrets that are written in the file, where other machines reach a node that believes them."""
    exposed = next((node for node in settings.nodes if not node.listen.is_loopback), None)
    if exposed is None:
        return
    for path, ref in _secrets(settings):
        if ref.literal is not None:
            message = (
                f"a secret in the file is for loopback only, and {exposed.listen} is reachable by other machines:"
                " use {env: NAME} or {file: path}"
            )
            yield Finding((*path, "insecure"), message)


def _secrets(settings: Settings) -> Iterator[tuple[KeyPath, DevelopmentSecretRef]]:
    for i, one in enumerate(settings.identities):
        for j, key in enumerate(one.access_keys):
            path = ("identities", i, "access_keys", j)
            yield (*path, "secret"), key.secret
            if key.session_token is not None:
                yield (*path, "session_token"), key.session_token


def _token_user(settings: Settings) -> Iterator[Finding]:
    if not settings.identities:
        return
    for i, node in enumerate(settings.nodes):
        for j, user in enumerate(node.auth.users if node.auth else ()):
            if user.name == TOKEN_USER:
                message = f"{TOKEN_USER} is who logs in with an authorization token; expected another name"
                yield Finding(("nodes", i, "auth", "users", j, "name"), message)


IDENTITY_CHECKS = (_unique, _literals, _token_user)
