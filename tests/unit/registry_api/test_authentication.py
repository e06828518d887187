from __future__ import annotations

import ast
import base64
import inspect
import json
from typing import TYPE_CHECKING

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.actions import Action
from replicator.core.errors import Unauthenticated
from replicator.core.names import RepositoryName, parse_node
from replicator.core.principal import UNRESTRICTED, PrincipalKind
from replicator.core.rights import Grant, Right, policies_of
from replicator.registry.peer_tokens import LIFETIME, PeerTokens
from replicator.registry_api import authentication
from replicator.registry_api.authentication import (
    TOKEN_LIFETIME,
    Authenticator,
    OpenAuthenticator,
    PeerAuthenticator,
    UserAuthenticator,
)
from replicator.registry_api.users import User
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import NodeId

EU, US, OTHER = (parse_node(text) for text in ("1" * 12 + "/eu", "1" * 12 + "/us", "2" * 12 + "/eu"))
SECRET = b"shared between nodes"
PULL = Grant(frozenset({Right.PULL}))
REPOSITORY = RepositoryName("team/api")


def peers(clock: FakeClock, secrets: Mapping[NodeId, bytes] | None = None) -> PeerAuthenticator:
    return PeerAuthenticator(PeerTokens(EU, SECRET, clock, secrets or {}))


def with_users(clock: FakeClock, *anonymous: Grant) -> UserAuthenticator:
    user = User.with_password("dev", "s3cret:with:colons", [PULL])
    return UserAuthenticator([user], anonymous, peers(clock), clock)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_password() -> None:
    principal = with_users(FakeClock()).authenticate(basic("dev", "s3cret:with:colons"))
    assert (principal.name, principal.kind, principal.policies) == ("dev", PrincipalKind.USER, policies_of((PULL,)))


def test_a_remembered_caller_is_the_same() -> None:
    authenticator = with_users(FakeClock())
    header = basic("dev", "s3cret:with:colons")
    assert authenticator.authenticate(header) == authenticator.authenticate(header)


def test_many_callers_are_not_remembered_for_ever() -> None:
    users = [User.with_password(f"user-{number}", "p", [PULL]) for number in range(1500)]
    authenticator = UserAuthenticator(users, (), peers(FakeClock()), FakeClock())
    for user in users:
        authenticator.authenticate(basic(user.name, "p"))
    assert len(authenticator._known) == 1024


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic ZGV2",
        "Basic " + b64(b"dev:wrong"),
        "Basic " + b64(b"dev:"),
        "Basic " + b64(b"dev:s3cret"),
        "Basic " + b64(b"DEV:s3cret:with:colons"),
        "Basic " + b64(b"nobody:s3cret:with:colons"),
        "Basic " + b64(b":x"),
        "Basic " + b64(b"\xff\xfe:\xff"),
        "Basic " + b64(b"dev:s3cret:with:colons\x00"),
        "Basic \udcff\udcfe",
        "Basic \u00e9",
        "Digest username=dev",
        "Bearer",
        "Bearer \udcff",
        "Bearer " + "." * 5000,
        "Bearer " + "a." * 2000,
        "Bearer \u00e9.\u00e9.\u00e9",
        "Bearer " + b64(b"[" * 2500).rstrip("=") + ".e30.e30",
        "Basic " + "A" * 10_000,
        "Bearer " + "A" * 8_000_000,
        b64(b"dev:s3cret:with:colons"),
    ],
    ids=lambda header: header[:40],
)
def test_other_credentials_are_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        with_users(FakeClock(), PULL).authenticate(header)


@given(st.text() | st.text().map("Basic {}".format) | st.binary().map(lambda raw: "Bearer " + b64(raw) + ".e30.x"))
def test_no_header_raises_anything_else(header: str) -> None:
    clock = FakeClock()
    authenticators: list[Authenticator] = [with_users(clock), OpenAuthenticator(peers(clock))]
    for authenticator in authenticators:
        try:
            assert authenticator.authenticate(header) == UNRESTRICTED
        except Unauthenticated:
            continue


def test_without_credentials_a_caller_is_nobody() -> None:
    assert with_users(FakeClock()).authenticate(None).kind is PrincipalKind.ANONYMOUS
    assert not with_users(FakeClock()).authenticate(None).may(Action.BATCH_GET_IMAGE, REPOSITORY)
    assert with_users(FakeClock(), PULL).authenticate(None).may(Action.BATCH_GET_IMAGE, REPOSITORY)


def test_empty_credentials_are_none() -> None:
    """`Basic Og==`, which podman sends to token services."""
    authenticator = with_users(FakeClock(), PULL)
    assert authenticator.authenticate(basic("", "")) == authenticator.authenticate(None)
    nobody = authenticator.exchange(basic("", ""))
    assert authenticator.authenticate(f"Bearer {nobody.token}").kind is PrincipalKind.ANONYMOUS


def test_a_token_is_not_exchanged_for_one_that_lives_longer() -> None:
    clock = FakeClock()
    authenticator = with_users(clock)
    first = authenticator.exchange(basic("dev", "s3cret:with:colons"))
    assert first.expires_in == TOKEN_LIFETIME
    clock.advance(TOKEN_LIFETIME - 100)
    second = authenticator.exchange(f"Bearer {first.token}")
    assert second.expires_in == 100
    clock.advance(101)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.authenticate(f"Bearer {second.token}")


def test_a_token_stands_for_its_user_for_twelve_hours() -> None:
    clock = FakeClock()
    authenticator = with_users(clock, PULL)
    user = authenticator.authenticate(basic("dev", "s3cret:with:colons"))
    header = "Bearer " + authenticator.exchange(basic("dev", "s3cret:with:colons")).token
    clock.advance(TOKEN_LIFETIME - 1)
    assert authenticator.authenticate(header) == user
    clock.advance(2)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.authenticate(header)


def test_a_token_of_nobody_stands_for_nobody() -> None:
    authenticator = with_users(FakeClock(), PULL)
    nobody = authenticator.authenticate(None)
    assert authenticator.authenticate("Bearer " + authenticator.exchange(None).token) == nobody


def test_a_token_s_user_must_still_exist() -> None:
    clock = FakeClock()
    authenticator = with_users(clock)
    token = authenticator.exchange(basic("dev", "s3cret:with:colons")).token
    authenticator.users.replace([], ())
    with pytest.raises(Unauthenticated):
        authenticator.authenticate("Bearer " + token)


def test_the_challenge_fits_what_nameless_callers_may_do() -> None:
    closed, open_to_read = with_users(FakeClock()), with_users(FakeClock(), PULL)
    assert closed.challenge("http://r") == 'Basic realm="http://r/",service="replicator"'
    assert open_to_read.challenge("http://r") == 'Bearer realm="http://r/v2/token",service="replicator"'


def key_of(authenticator: UserAuthenticator) -> bytes:
    return authenticator._key


def forged(claims: Mapping[str, object], header: Mapping[str, object], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


CLAIMS: dict[str, object] = {"sub": "dev", "exp": 9_999_999_999}
PEER_CLAIMS: dict[str, object] = {"iss": str(US), "aud": str(EU), "exp": 9_999_999_999}
ATTACKER = jwt.encode({**CLAIMS, **PEER_CLAIMS}, b"a key of the attacker's own choosing", algorithm="HS256")


@pytest.mark.parametrize(
    "token",
    [
        ATTACKER,
        forged(CLAIMS, {"alg": "none"}),
        forged(CLAIMS, {"alg": "None", "typ": "JWT"}),
        forged(CLAIMS, {"alg": "HS256"}),
        forged(CLAIMS, {"alg": "HS512"}, b"x" * 64),
        forged(CLAIMS, {"alg": "RS256"}, b"x" * 256),
        forged(CLAIMS, {"alg": "HS256", "jwk": {"kty": "oct", "k": "YXR0YWNrZXI"}}, b"x" * 32),
        forged(CLAIMS, {"alg": "HS256", "x5c": ["MIIB"], "x5u": "http://127.0.0.1/"}, b"x" * 32),
        forged(CLAIMS, {"alg": "HS256", "kid": "../../dev/null"}, b"x" * 32),
        forged(CLAIMS, {"alg": ["HS256"]}),
        forged(CLAIMS, {"alg": None}),
        forged(CLAIMS, {}),
        forged(PEER_CLAIMS, {"alg": "none", "typ": "replicator-peer"}),
        "..",
        "a.b.c",
        "e30.e30.",
    ],
)
def test_forged_tokens_are_refused(token: str) -> None:
    clock = FakeClock()
    for authenticator in (with_users(clock), with_users(clock, PULL)):
        with pytest.raises(Unauthenticated):
            authenticator.authenticate(f"Bearer {token}")


@pytest.mark.parametrize("missing", ["sub", "exp"])
def test_a_token_must_say_who_and_until_when(missing: str) -> None:
    authenticator = with_users(FakeClock())
    claims = {name: value for name, value in CLAIMS.items() if name != missing}
    with pytest.raises(Unauthenticated):
        authenticator.authenticate("Bearer " + jwt.encode(claims, key_of(authenticator), algorithm="HS256"))


def test_tokens_of_another_start_are_refused() -> None:
    clock = FakeClock()
    token = with_users(clock).exchange(basic("dev", "s3cret:with:colons")).token
    with pytest.raises(Unauthenticated):
        with_users(clock).authenticate("Bearer " + token)


def test_a_peer_is_known_by_its_token() -> None:
    clock = FakeClock()
    token = PeerTokens(US, SECRET, clock).issue(EU)
    authenticators: list[Authenticator] = [with_users(clock), OpenAuthenticator(peers(clock))]
    for authenticator in authenticators:
        principal = authenticator.authenticate(f"Bearer {token}")
        assert (principal.kind, principal.node) == (PrincipalKind.NODE, US)
        assert not principal.may(Action.PUT_IMAGE, REPOSITORY)
        assert not principal.may(Action.BATCH_DELETE_IMAGE, REPOSITORY)


OF_THE_PAIR = b"between two nodes only"


def test_a_pair_s_secret_speaks_for_its_node_and_nobody_else() -> None:
    """OTHER holds the secret it shares with EU: with it, it is OTHER there, and can be nobody else."""
    clock = FakeClock()
    authenticator = peers(clock, {OTHER: OF_THE_PAIR})
    own = PeerTokens(OTHER, b"none of EU's business", clock, {EU: OF_THE_PAIR}).issue(EU)
    assert authenticator.authenticate(own).node == OTHER
    for pretended in (US, EU):
        token = PeerTokens(pretended, OF_THE_PAIR, clock).issue(EU)
        with pytest.raises(Unauthenticated):
            authenticator.authenticate(token)


def test_a_peer_with_a_secret_of_its_own_is_not_believed_by_the_shared_one() -> None:
    clock = FakeClock()
    authenticator = peers(clock, {OTHER: OF_THE_PAIR})
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(PeerTokens(OTHER, SECRET, clock).issue(EU))
    assert authenticator.authenticate(PeerTokens(US, SECRET, clock).issue(EU)).node == US


def test_a_pair_s_token_is_for_one_node_some_minutes_and_unchanged() -> None:
    clock = FakeClock()
    authenticator = peers(clock, {OTHER: OF_THE_PAIR})
    tokens = PeerTokens(OTHER, SECRET, clock, {EU: OF_THE_PAIR, US: OF_THE_PAIR})
    head, claims, signature = tokens.issue(EU).split(".")
    as_us = b64(json.dumps({**PEER_CLAIMS}).encode()).rstrip("=")
    for token in (tokens.issue(US), f"{head}.{as_us}.{signature}", f"{head}.{claims}.{signature[::-1]}"):
        with pytest.raises(Unauthenticated):
            authenticator.authenticate(token)
    token = tokens.issue(EU)
    clock.advance(LIFETIME + 61)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.authenticate(token)


def test_a_peer_s_token_is_for_one_node_and_some_minutes() -> None:
    clock = FakeClock()
    for_us, for_eu = PeerTokens(EU, SECRET, clock).issue(US), PeerTokens(US, SECRET, clock).issue(EU)
    with pytest.raises(Unauthenticated):
        peers(clock).authenticate(for_us)
    clock.advance(LIFETIME + 59)
    peers(clock).authenticate(for_eu)
    clock.advance(2)
    with pytest.raises(Unauthenticated, match="expired"):
        peers(clock).authenticate(for_eu)


def test_nobody_speaks_to_a_node_in_its_own_name() -> None:
    clock = FakeClock()
    with pytest.raises(Unauthenticated, match="own"):
        peers(clock).authenticate(PeerTokens(EU, SECRET, clock).issue(EU))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [str(EU)]},
        {"aud": [str(EU), str(US)]},
        {"aud": str(US)},
        {"aud": None},
        {"iss": "nobody"},
        {"iss": None},
        {"exp": "soon"},
        {"exp": None},
        {"exp": [9_999_999_999]},
        {"exp": {}},
        {"exp": "nan"},
    ],
    ids=str,
)
def test_a_peer_s_claims_are_checked(changes: dict[str, object]) -> None:
    """Even with the right key: another version or another program may hold it."""
    clock = FakeClock()
    tokens = PeerTokens(EU, SECRET, clock)
    claims = {name: value for name, value in {**PEER_CLAIMS, **changes}.items() if value is not None}
    with pytest.raises(Unauthenticated):
        tokens.verify(jwt.encode(claims, tokens._key, algorithm="HS256"))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_algorithm_is_ours_to_choose(algorithm: str) -> None:
    tokens = PeerTokens(EU, SECRET * 4, FakeClock())
    with pytest.raises(Unauthenticated):
        tokens.verify(jwt.encode(PEER_CLAIMS, tokens._key * 2, algorithm=algorithm))


def test_an_open_node_lets_everybody_in_but_forged_peers() -> None:
    clock = FakeClock()
    authenticator = OpenAuthenticator(peers(clock))
    for header in (None, "", basic("any", "thing"), "Bearer token", "Bearer \udcff", "Bearer " + "." * 10**6):
        assert authenticator.authenticate(header) == UNRESTRICTED
    with pytest.raises(Unauthenticated):
        authenticator.authenticate("Bearer " + PeerTokens(US, b"another secret", clock).issue(EU))
    assert authenticator.challenge("http://r") is None
    assert authenticator.exchange(None).token
    assert not authenticator.answers_as_ecr


def test_secrets_are_compared_in_constant_time() -> None:
    """No `==` in this module touches a password, a token or a digest of one."""
    tree = ast.parse(inspect.getsource(authentication))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "password" in text or "digest" in text or "credentials" in text]
    assert "compare_digest" in ast.unparse(tree)


def test_nothing_shows_a_password() -> None:
    user = User.with_password("dev", "s3cret", [])
    assert "s3cret" not in repr(user)
    assert user.password_digest.hex() not in repr(user)
    assert repr(user.password_digest) not in repr(user)


class TestUsersThatAreReplaced:
    """What was given to a user ends with the user, the password or the grant it was given for."""

    def replaced(self, authenticator: UserAuthenticator, *users: User) -> None:
        assert authenticator.users.replace(users, ())

    def test_a_removed_user(self) -> None:
        authenticator = with_users(FakeClock())
        header = basic("dev", "s3cret:with:colons")
        bearer = f"Bearer {authenticator.exchange(header).token}"
        assert authenticator.authenticate(bearer).name == "dev"
        self.replaced(authenticator)
        for one in (header, bearer):
            with pytest.raises(Unauthenticated):
                authenticator.authenticate(one)

    def test_a_changed_password_ends_the_bearers_of_the_old_one(self) -> None:
        authenticator = with_users(FakeClock())
        header = basic("dev", "s3cret:with:colons")
        bearer = f"Bearer {authenticator.exchange(header).token}"
        self.replaced(authenticator, User.with_password("dev", "new", [PULL]))
        for one in (header, bearer):
            with pytest.raises(Unauthenticated):
                authenticator.authenticate(one)
        assert authenticator.authenticate(basic("dev", "new")).name == "dev"

    def test_a_changed_grant_holds_for_bearers_of_before(self) -> None:
        authenticator = with_users(FakeClock())
        bearer = f"Bearer {authenticator.exchange(basic('dev', 's3cret:with:colons')).token}"
        assert authenticator.authenticate(bearer).may(Action.BATCH_GET_IMAGE, REPOSITORY)
        push = Grant(frozenset({Right.PUSH}), ("other/*",))
        self.replaced(authenticator, User.with_password("dev", "s3cret:with:colons", [push]))
        assert not authenticator.authenticate(bearer).may(Action.BATCH_GET_IMAGE, REPOSITORY)

    def test_anonymous_grants(self) -> None:
        authenticator = with_users(FakeClock(), PULL)
        assert authenticator.authenticate(None).may(Action.BATCH_GET_IMAGE, REPOSITORY)
        assert authenticator.users.replace([], ())
        assert not authenticator.authenticate(None).may(Action.BATCH_GET_IMAGE, REPOSITORY)
        assert not authenticator.users.replace([], ())
