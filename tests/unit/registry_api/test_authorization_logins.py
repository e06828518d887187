"""Logging in with an authorization token: as user AWS, as a bearer, and for no longer than the credential lives."""

from __future__ import annotations

import base64

import pytest

from replicator.core.actions import Action
from replicator.core.errors import AuthorizationExpired, Unauthenticated
from replicator.core.names import Region, RepositoryName, parse_node
from replicator.core.principal import PrincipalKind
from replicator.core.rights import Grant, Right
from replicator.registry.authorization_tokens import LIFETIME, AuthorizationTokens
from replicator.registry.identities import IdentityDirectory
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry_api.authentication import PeerAuthenticator, UserAuthenticator
from replicator.registry_api.users import User
from tests.support.clock import FakeClock
from tests.support.identities import DEV, access_key

NODE = parse_node("123456789012/us-east-1")
PULL = Grant(frozenset({Right.PULL}))
KEY = access_key()


class Login:
    """A node with one identity and one user."""

    def __init__(self, *anonymous: Grant) -> None:
        self.clock = FakeClock()
        self.directory = IdentityDirectory([KEY])
        self.tokens = AuthorizationTokens(self.directory, Region("us-east-1"))
        peers = PeerAuthenticator(PeerTokens(NODE, b"shared between nodes", self.clock))
        user = User.with_password("dev", "s3cret", [PULL])
        self.authenticator = UserAuthenticator([user], anonymous, peers, self.clock, self.tokens)

    def password(self) -> str:
        return self.tokens.issue(KEY, self.clock.now())[0]


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_the_caller_is_the_principal() -> None:
    login = Login()
    principal = login.authenticator.authenticate(basic("AWS", login.password()))
    assert (principal.kind, principal.name, principal.arn, principal.account) == (
        PrincipalKind.USER,
        DEV,
        DEV,
        "123456789012",
    )
    assert principal.may(Action.PUT_IMAGE, RepositoryName("team/api"))


def test_users_with_passwords_still_log_in() -> None:
    login = Login()
    assert login.authenticator.authenticate(basic("dev", "s3cret")).name == "dev"
    with pytest.raises(Unauthenticated):
        login.authenticator.authenticate(basic("dev", login.password()))


@pytest.mark.parametrize("name", ["aws", "dev", "", "AWS "])
def test_only_aws_logs_in_with_a_token(name: str) -> None:
    login = Login()
    with pytest.raises(Unauthenticated):
        login.authenticator.authenticate(basic(name, login.password()))


def test_a_token_of_another_region_is_refused() -> None:
    login = Login()
    elsewhere, _ = AuthorizationTokens(login.directory, Region("eu-west-1")).issue(KEY, login.clock.now())
    with pytest.raises(Unauthenticated):
        login.authenticator.authenticate(basic("AWS", elsewhere))


def test_an_expired_token_is_told_so_even_by_who_was_remembered() -> None:
    login = Login()
    header = basic("AWS", login.password())
    login.clock.advance(LIFETIME - 30)
    login.authenticator.authenticate(header)
    login.clock.advance(30)
    with pytest.raises(AuthorizationExpired):
        login.authenticator.authenticate(header)


def test_a_bearer_token_ends_with_the_credential() -> None:
    login = Login()
    header = basic("AWS", login.password())
    login.clock.advance(3600)
    bearer = login.authenticator.exchange(header)
    assert bearer.expires_in == LIFETIME - 3600
    assert login.authenticator.authenticate(f"Bearer {bearer.token}").arn == DEV
    login.clock.advance(LIFETIME - 3600)
    with pytest.raises(AuthorizationExpired):
        login.authenticator.authenticate(f"Bearer {bearer.token}")


def test_what_the_api_gives_is_a_bearer_token_as_it_is() -> None:
    """As ECR Public takes it: the user's name and the password in Base64."""
    login = Login()
    given = basic("AWS", login.password()).removeprefix("Basic ")
    assert login.authenticator.authenticate(f"Bearer {given}").arn == DEV
    for other in (basic("dev", login.password()), basic("AWS", "password"), basic("AWS", "")):
        with pytest.raises(Unauthenticated):
            login.authenticator.authenticate(other.replace("Basic", "Bearer"))


def test_a_login_ends_when_its_key_is_taken_away() -> None:
    login = Login()
    header = basic("AWS", login.password())
    bearer = f"Bearer {login.authenticator.exchange(header).token}"
    for known in (header, bearer):
        login.authenticator.authenticate(known)
    login.directory.replace([])
    for known in (header, bearer):
        with pytest.raises(Unauthenticated):
            login.authenticator.authenticate(known)


def test_what_a_principal_may_do_is_never_older_than_the_directory() -> None:
    login = Login()
    header = basic("AWS", login.password())
    assert login.authenticator.authenticate(header).may(Action.PUT_IMAGE, RepositoryName("a"))
    powerless = access_key()
    object.__setattr__(powerless.identity, "policies", ())
    login.directory.replace([powerless])
    assert not login.authenticator.authenticate(header).may(Action.PUT_IMAGE, RepositoryName("a"))


def test_the_challenge_is_ecr_s() -> None:
    assert Login().authenticator.answers_as_ecr
    challenge = Login().authenticator.challenge("http://127.0.0.1:5000")
    assert challenge == 'Basic realm="https://127.0.0.1:5000/",service="ecr.amazonaws.com"'


def test_where_nameless_callers_may_pull_clients_are_sent_for_a_token() -> None:
    login = Login(PULL)
    assert login.authenticator.challenge("http://r") == 'Bearer realm="http://r/v2/token",service="replicator"'
    assert login.authenticator.authenticate(basic("", "")).kind is PrincipalKind.ANONYMOUS
