from __future__ import annotations

import ast
import base64
import inspect
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import AuthorizationExpired, Unauthenticated
from replicator.core.names import Region
from replicator.registry import authorization_tokens
from replicator.registry.authorization_tokens import _PURPOSE, LIFETIME, MAX_TOKEN_LENGTH, AuthorizationTokens
from replicator.registry.identities import AccessKey, IdentityDirectory
from tests.support.identities import DEV, access_key

NOW = 1_750_000_000.0
US, EU = Region("us-east-1"), Region("eu-west-1")
KEY = access_key()


def tokens(*keys: AccessKey, region: Region = US) -> AuthorizationTokens:
    return AuthorizationTokens(IdentityDirectory(keys or [KEY]), region)


def signed(key: AccessKey = KEY, header: dict[str, Any] | None = None, **claims: object) -> str:
    """Return a token with the right signature that says something else."""
    said = {"sub": DEV, "account": "123456789012", "region": US, "exp": NOW + 60, **claims}
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        key.derived(_PURPOSE),
        algorithm="HS256",
        headers={"typ": "ecr", "kid": key.id, **(header or {})},
    )


def forged(header: dict[str, object], signature: bytes = b"x" * 32) -> str:
    claims = {"sub": DEV, "account": "123456789012", "region": US, "exp": NOW + 60}
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def test_a_token_is_its_principal_s_for_twelve_hours() -> None:
    token, expires_at = tokens().issue(KEY, NOW)
    assert expires_at == NOW + 43_200 == NOW + LIFETIME
    found = tokens().verify(token, NOW + LIFETIME - 1)
    assert (found.identity, found.expires_at) == (KEY.identity, expires_at)
    with pytest.raises(
        AuthorizationExpired, match=r"^Your authorization token has expired\. Reauthenticate and try again\.$"
    ):
        tokens().verify(token, NOW + LIFETIME)


def test_clients_can_split_user_and_password() -> None:
    token, _ = tokens().issue(KEY, NOW)
    assert ":" not in token
    assert base64.b64encode(f"AWS:{token}".encode()).decode().strip().isascii()
    assert len(token) < 2000


def test_a_token_is_for_its_region() -> None:
    token, _ = tokens(region=EU).issue(KEY, NOW)
    assert tokens(region=EU).verify(token, NOW).identity == KEY.identity
    with pytest.raises(Unauthenticated):
        tokens().verify(token, NOW)


def test_a_token_dies_with_its_access_key() -> None:
    token, _ = tokens().issue(KEY, NOW)
    for changed in (
        access_key("OTHER"),
        access_key(secret="another secret, which is longer"),
        access_key(session_token="temporary"),
        access_key(arn="arn:aws:iam::123456789012:user/other"),
    ):
        with pytest.raises(Unauthenticated):
            tokens(changed).verify(token, NOW)
    assert tokens(access_key("NEW"), KEY).verify(token, NOW).identity == KEY.identity


def test_a_temporary_key_s_token_dies_with_the_session() -> None:
    token, _ = tokens().issue(access_key(session_token="one"), NOW)
    assert tokens(access_key(session_token="one")).verify(token, NOW).identity == KEY.identity
    for changed in (access_key(session_token="two"), access_key()):
        with pytest.raises(Unauthenticated):
            tokens(changed).verify(token, NOW)


def test_a_directory_is_replaced_as_a_whole() -> None:
    directory = IdentityDirectory([KEY])
    ours = AuthorizationTokens(directory, US)
    token, _ = ours.issue(KEY, NOW)
    version = ours.version
    directory.replace([access_key("OTHER")])
    assert (ours.version, len(directory), directory.find_key("AKIDEXAMPLE")) == (version + 1, 1, None)
    with pytest.raises(Unauthenticated):
        ours.verify(token, NOW)


def test_what_changes_nothing_is_known() -> None:
    directory = IdentityDirectory([KEY, access_key("OTHER")])
    assert directory.is_made_of([access_key("OTHER"), access_key()])
    assert not directory.is_made_of([KEY])
    assert not directory.is_made_of([KEY, access_key("OTHER", session_token="x")])


@pytest.mark.parametrize(
    "token",
    [
        forged({"alg": "none", "typ": "ecr", "kid": KEY.id}, b""),
        forged({"alg": "HS256", "typ": "ecr", "kid": KEY.id}),
        forged({"alg": "HS512", "typ": "ecr", "kid": KEY.id}, b"x" * 64),
        forged({"alg": "RS256", "typ": "ecr", "kid": KEY.id}, b"x" * 256),
        forged({"alg": "HS256", "typ": "ecr", "kid": "../../dev/null"}),
        forged({"alg": "HS256", "typ": "ecr", "kid": ["AKIDEXAMPLE"]}),
        forged({"alg": "HS256", "typ": "ecr"}),
        forged({"alg": "HS256", "typ": "ecr", "kid": KEY.id, "jwk": {"kty": "oct", "k": "YXR0YWNrZXI"}}),
        signed(header={"typ": "JWT"}),
        signed(header={"typ": "replicator-peer"}),
        signed(sub="arn:aws:iam::123456789012:user/other"),
        signed(sub=None),
        signed(region=EU),
        signed(region=None),
        signed(account=None),
        signed(account="210987654321"),
        signed(exp=None),
        signed(exp="soon"),
        signed(exp=[NOW + 60]),
        signed(exp=NOW + 2 * LIFETIME),
        signed(exp=float("inf")),
        signed(exp=10**400),
        signed(access_key(secret="x" * 40)),
        "",
        "a.b.c",
        "e30.e30.",
        "." * 100_000,
        "A" * (MAX_TOKEN_LENGTH + 1),
        "\u00e9.\u00e9.\u00e9",
    ],
    ids=lambda token: str(token)[:30],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().verify(token, NOW)


@pytest.mark.parametrize("exp", ["nan", float("nan"), float("-inf"), -1])
def test_what_is_no_time_has_expired(exp: object) -> None:
    with pytest.raises((AuthorizationExpired, Unauthenticated)):
        tokens().verify(signed(exp=exp), NOW)


@given(st.text())
def test_nothing_else_is_raised(token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().verify(token, NOW)


def test_without_a_key_a_token_means_nothing() -> None:
    token, expires_at = tokens().issue(None, NOW)
    assert expires_at == NOW + LIFETIME
    assert ":" not in token
    with pytest.raises(Unauthenticated):
        tokens().verify(token, NOW)


def test_nothing_shows_a_secret() -> None:
    key = access_key(session_token="a-session-token")
    assert key.secret not in repr(key)
    assert "a-session-token" not in repr(key)


def test_the_module_compares_no_secret_itself() -> None:
    tree = ast.parse(inspect.getsource(authorization_tokens))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "secret" in text or "password" in text or "derived" in text]
