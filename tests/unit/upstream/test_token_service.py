"""Challenges answered: who gets our credentials, how often tokens are asked for, and what happens when that fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from replicator.core.errors import (
    ReplicatorError,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.auth import BearerAuthorizer, ChallengeAuthorizer
from replicator.upstream.client import UpstreamClient, open_client
from replicator.upstream.credentials import IDENTITY_TOKEN_USER
from replicator.upstream.endpoint import Credentials
from replicator.upstream.session import Session
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of, endpoint_of
from tests.support.upstreams import FakeRegistry, FakeServer, FakeTokenServer, Fault, Hold, Tokens, basic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.upstream.endpoint import CredentialSource

ALPINE, NGINX, TAG = RepositoryName("library/alpine"), RepositoryName("library/nginx"), Tag("3.20")
CREDENTIALS = Credentials("ann", "correct-horse")


def tokens_for_ann(**options: object) -> Tokens:
    return Tokens("ann", "correct-horse", **options)  # type: ignore[arg-type]


class TestBasic:
    async def test_is_sent_once_asked_for_and_then_at_once(self) -> None:
        async with (
            FakeRegistry(basic=("ann", "correct-horse")) as upstream,
            client_of(upstream, credentials=CREDENTIALS) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            await client.head_manifest(ALPINE, TAG)
            assert [len(upstream.authorizations(f"{method} *")) for method in ("GET", "HEAD")] == [1, 1]
            assert upstream.count() == 3

    @pytest.mark.parametrize("credentials", [None, Credentials("ann", "wrong")])
    async def test_refusal_is_denied_without_repetition(self, credentials: Credentials | None) -> None:
        async with (
            FakeRegistry(basic=("ann", "correct-horse")) as upstream,
            client_of(upstream, credentials=credentials) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            with pytest.raises(UpstreamDenied, match="401 UNAUTHORIZED"):
                await client.get_manifest(ALPINE, TAG)
            assert upstream.count() == (1 if credentials is None else 2)


class TestBearer:
    @pytest.mark.parametrize("field_name", ["token", "access_token"])
    async def test_token_is_fetched_with_the_credentials_and_used_again(self, field_name: str) -> None:
        tokens = tokens_for_ann(field_name=field_name)
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=CREDENTIALS) as client:
            image = upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            await client.blob_exists(ALPINE, image.config)
            assert tokens.issued == 1
            assert upstream.authorizations("/token") == [basic("ann", "correct-horse")]
            assert set(upstream.authorizations("/v2/*")) == {"Bearer token-1"}

    async def test_token_is_fetched_anonymously_without_credentials(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            assert upstream.authorizations("/token") == []
            (asked,) = upstream.asked("/token")
            assert asked.query == {"service": "fake.registry", "scope": "repository:library/alpine:pull"}

    async def test_scope_is_ours_where_the_registry_states_none(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.challenge = f'Bearer realm="{upstream.url}/token?account=x"'
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            (asked,) = upstream.asked("/token")
            assert asked.query == {"account": "x", "scope": "repository:library/alpine:pull"}

    async def test_ping_needs_no_scope(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            await client.ping()
            assert tokens.scopes == [[]]

    async def test_each_repository_has_a_token_of_its_own(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.add_image(NGINX, TAG)
            for repository in (ALPINE, NGINX, ALPINE):
                await client.get_manifest(repository, TAG)
            assert tokens.scopes == [["repository:library/alpine:pull"], ["repository:library/nginx:pull"]]

    async def test_token_is_renewed_shortly_before_it_expires(self) -> None:
        tokens, clock = tokens_for_ann(expires_in=300), FakeClock(auto=True)
        async with (
            FakeRegistry(tokens=tokens) as upstream,
            client_of(upstream, clock, credentials=CREDENTIALS) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            clock.advance(285)
            await client.get_manifest(ALPINE, TAG)
            assert tokens.issued == 1
            clock.advance(10)
            await client.get_manifest(ALPINE, TAG)
            assert tokens.issued == 2
            assert upstream.count("/v2/*") == 4, "renewed before the registry had to refuse it"

    async def test_token_without_lifetime_serves_for_a_minute(self) -> None:
        tokens, clock = Tokens(expires_in=None), FakeClock(auto=True)
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, clock) as client:
            upstream.add_image(ALPINE, TAG)
            for pause in (0, 45, 10):
                clock.advance(pause)
                await client.get_manifest(ALPINE, TAG)
            assert tokens.issued == 2

    async def test_token_that_expired_early_is_renewed_once_per_refusal(self) -> None:
        """A token that the registry no longer takes costs one refusal, one token and one repetition."""
        tokens = tokens_for_ann()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=CREDENTIALS) as client:
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            tokens.expire()
            await client.get_manifest(ALPINE, TAG)
            assert (tokens.issued, upstream.count("/v2/*")) == (2, 4)

    async def test_token_that_is_never_accepted_is_not_asked_for_forever(self) -> None:
        tokens = tokens_for_ann()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=CREDENTIALS) as client:
            upstream.faults.on("/v2/*", Fault(status=401, headers={"WWW-Authenticate": upstream_challenge(upstream)}))
            with pytest.raises(UpstreamDenied):
                await client.get_manifest(ALPINE, TAG)
            assert (tokens.issued, upstream.count("/v2/*")) == (1, 2)

    async def test_concurrent_requests_share_one_token_request(self) -> None:
        tokens, hold = tokens_for_ann(), Hold()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=CREDENTIALS) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("/token", Fault(hold=hold, answer=None))
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(client.get_manifest(ALPINE, TAG))
                await upstream.seen("GET /v2/*", 20)
                hold.release()
            assert tokens.issued == 1

    async def test_late_refusal_uses_the_token_that_came_meanwhile(self) -> None:
        tokens, hold = Tokens(), Hold()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            challenge = {"WWW-Authenticate": upstream_challenge(upstream)}
            upstream.faults.on("GET /v2/*", Fault(status=401, headers=challenge, hold=hold), times=1)
            async with asyncio.TaskGroup() as group:
                late = group.create_task(client.get_manifest(ALPINE, TAG))
                await hold.reached()
                await client.get_manifest(ALPINE, TAG)
                hold.release()
            assert late.result().media_type
            assert tokens.issued == 1

    async def test_tokens_are_kept_for_a_bounded_number_of_repositories(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream:
            endpoint = endpoint_of(upstream)
            session = Session(endpoint)
            authorizer = ChallengeAuthorizer(endpoint, session, FakeClock(), max_tokens=2)
            for name in ("a", "b", "c", "c", "b", "a"):
                repository = RepositoryName(name)
                if not await authorizer.headers(repository, ("pull",)):
                    assert await authorizer.challenged(repository, ("pull",), upstream_challenge(upstream), refused={})
            await session.close()
            assert tokens.issued == 4

    async def test_refused_answer_is_not_read_to_its_end(self) -> None:
        closed = asyncio.Event()

        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=401, headers={"WWW-Authenticate": upstream_challenge(upstream)})
            await response.prepare(request)
            try:
                while True:
                    await response.write(b" " * 65536)
            finally:
                closed.set()

        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("GET /v2/*", Fault(answer=endless), times=1)
            await client.get_manifest(ALPINE, TAG)
            await closed.wait()

    async def test_failure_of_the_token_request_reaches_every_waiter(self) -> None:
        hold = Hold()
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("/token", Fault(status=503, hold=hold))
            failures: list[UpstreamError] = []

            async def pull() -> None:
                with pytest.raises(UpstreamUnavailable, match="token service") as caught:
                    await client.get_manifest(ALPINE, TAG)
                failures.append(caught.value)

            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(pull())
                await upstream.seen("GET /v2/*", 10)
                hold.release()
            assert len(failures) == 10
            assert upstream.count("/token") == 1

    async def test_waiter_that_leaves_does_not_take_the_token_from_the_others(self) -> None:
        hold, tokens = Hold(), Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("/token", Fault(hold=hold))
            async with asyncio.TaskGroup() as group:
                first = group.create_task(client.get_manifest(ALPINE, TAG))
                await hold.reached()
                second = group.create_task(client.get_manifest(ALPINE, TAG))
                await upstream.seen("GET /v2/*", 2)
                first.cancel()
                hold.release()
            assert first.cancelled()
            assert second.result().media_type
            assert tokens.issued == 1

    async def test_close_ends_a_token_request_under_way(self) -> None:
        hold = Hold()
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            upstream.faults.on("/token", Fault(hold=hold))
            async with asyncio.TaskGroup() as group:
                pull = group.create_task(_outcome(client))
                await hold.reached()
                await client.close()
            assert pull.result() == "ShuttingDown"


async def _outcome(client: UpstreamClient) -> str:
    try:
        await client.get_manifest(ALPINE, TAG)
    except ReplicatorError as error:
        return type(error).__name__
    return "fetched"


def upstream_challenge(upstream: FakeRegistry) -> str:
    return f'Bearer realm="{upstream.url}/token",service="fake"'


class TestTokenServiceFailure:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault(status=401), UpstreamDenied),
            (Fault(status=403), UpstreamDenied),
            (Fault(status=404), UpstreamDenied),
            (Fault(status=400), UpstreamDenied),
            (Fault(status=500), UpstreamUnavailable),
            (Fault(status=429, headers={"Retry-After": "77"}), UpstreamThrottled),
            (Fault(body=b"<html>"), UpstreamContent),
            (Fault(body=b"[]"), UpstreamContent),
            (Fault(body=b"{}"), UpstreamContent),
            (Fault(body=b'{"token": 5}'), UpstreamContent),
            (Fault(body=b'{"token": "a\\r\\nX-Evil: 1"}'), UpstreamContent),
            (Fault(body=b"[" * 200_000), UpstreamContent),
            (Fault(drop=True), UpstreamUnavailable),
            (Fault(hold=Hold()), UpstreamTimeout),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    async def test_is_named(self, fault: Fault, error: type[UpstreamError]) -> None:
        patience = 0.3 if error is UpstreamTimeout else 30.0
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream, total_timeout=patience) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("/token", fault)
            with pytest.raises(error) as caught:
                await client.get_manifest(ALPINE, TAG)
            assert type(caught.value) is error
            assert error is not UpstreamThrottled or caught.value.retry_after == 77

    async def test_endless_token_answer_is_cut_off(self) -> None:
        """The answer of a token service is bounded like any other (CVE-2017-11468, CVE-2023-25153)."""
        hold = Hold()
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            endless = b" " * (3 * 1024 * 1024)
            upstream.faults.on("/token", Fault(body=endless, chunked=True, hold=hold, hold_after=2 * 1024 * 1024))
            with pytest.raises(UpstreamContent, match="longer than"):
                await client.get_manifest(ALPINE, TAG)

    @pytest.mark.parametrize(
        "challenge", ["", "Negotiate", "Bearer", 'Bearer service="x"', 'Bearer realm="', "x" * 7000]
    )
    async def test_unreadable_challenge_is_refused_cleanly(self, challenge: str) -> None:
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            upstream.challenge = challenge
            with pytest.raises(UpstreamError):
                await client.get_manifest(ALPINE, TAG)


class TestThrottledTokenService:
    async def test_is_left_alone_and_so_is_the_registry_by_those_who_need_a_token(self) -> None:
        clock, tokens = FakeClock(auto=True), Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, clock) as client:
            upstream.add_image(ALPINE, TAG)
            upstream.add_image(NGINX, TAG)
            await client.get_manifest(ALPINE, TAG)
            upstream.faults.on("/token", Fault(status=429, headers={"Retry-After": "60"}), times=1)
            with pytest.raises(UpstreamThrottled):
                await client.get_manifest(NGINX, TAG)
            asked = upstream.count()
            for _ in range(20):
                with pytest.raises(UpstreamThrottled, match="token service: asked us to slow down") as caught:
                    await client.get_manifest(NGINX, TAG)
                assert caught.value.retry_after == pytest.approx(60)
            assert upstream.count() == asked
            await client.get_manifest(ALPINE, TAG)  # it has a token
            assert client.health.paused_for == {"tokens": pytest.approx(60)}
            clock.advance(61)
            await client.get_manifest(NGINX, TAG)
            assert client.health.paused_for == {}

    async def test_is_not_asked_to_renew_a_token_either(self) -> None:
        clock, tokens = FakeClock(auto=True), Tokens(expires_in=300)
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, clock) as client:
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            clock.advance(295)
            upstream.faults.on("/token", Fault(status=429, headers={"Retry-After": "60"}), times=1)
            for _ in range(5):
                with pytest.raises(UpstreamThrottled):
                    await client.get_manifest(ALPINE, TAG)
            assert upstream.count("/token") == 2

    async def test_that_states_no_time_gets_no_storm(self) -> None:
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream) as client:
            upstream.faults.on("/token", Fault(status=429))
            for _ in range(20):
                with pytest.raises(UpstreamThrottled) as caught:
                    await client.get_manifest(ALPINE, TAG)
                assert 0 < (caught.value.retry_after or 0) <= 30
            assert upstream.count("/token") == 1


class Changing:
    """Credentials that are replaced by the next ones when they are refused."""

    def __init__(self, *passwords: str) -> None:
        self._passwords = list(passwords)
        self.refusals: list[Credentials] = []

    async def get(self) -> Credentials | None:
        return Credentials("ann", self._passwords[0]) if self._passwords else None

    def refused(self, credentials: Credentials) -> None:
        self.refusals.append(credentials)
        if len(self._passwords) > 1:
            self._passwords.pop(0)


@asynccontextmanager
async def client_with(upstream: FakeRegistry, source: CredentialSource) -> AsyncIterator[UpstreamClient]:
    client = open_client(endpoint_of(upstream), FakeClock(auto=True), credentials=source)
    try:
        yield client
    finally:
        await client.close()


class TestChangingCredentials:
    async def test_are_replaced_when_a_token_service_refuses_them(self) -> None:
        tokens, source = tokens_for_ann(), Changing("expired", "correct-horse")
        async with FakeRegistry(tokens=tokens) as upstream, client_with(upstream, source) as client:
            await client.ping()
            assert source.refusals == [Credentials("ann", "expired")]
            assert upstream.authorizations("/token") == [basic("ann", "expired"), basic("ann", "correct-horse")]

    async def test_are_replaced_when_a_registry_refuses_them(self) -> None:
        source = Changing("expired", "correct-horse")
        async with (
            FakeRegistry(basic=("ann", "expired")) as upstream,
            client_with(upstream, source) as client,
        ):
            await client.ping()
            upstream.basic = ("ann", "correct-horse")
            await client.ping()
            assert source.refusals == [Credentials("ann", "expired")]
            assert upstream.count() == 4

    @pytest.mark.parametrize("scheme", ["basic", "bearer"])
    async def test_that_are_all_wrong_are_tried_once_each(self, scheme: str) -> None:
        source = Changing("wrong", "wrong again", "and again")
        async with (
            FakeRegistry(
                basic=("ann", "correct-horse") if scheme == "basic" else None,
                tokens=tokens_for_ann() if scheme == "bearer" else None,
            ) as upstream,
            client_with(upstream, source) as client,
        ):
            with pytest.raises(UpstreamDenied):
                await client.ping()
            assert len(upstream.authorizations()) <= 2

    async def test_that_came_meanwhile_are_not_refused_for_the_old_ones(self) -> None:
        hold, source = Hold(), Changing("expired", "correct-horse")
        async with (
            FakeRegistry(basic=("ann", "expired")) as upstream,
            client_with(upstream, source) as client,
            asyncio.TaskGroup() as group,
        ):
            await client.ping()
            upstream.basic = ("ann", "correct-horse")
            challenge = {"WWW-Authenticate": 'Basic realm="x"'}
            upstream.faults.on("*", Fault(status=401, headers=challenge, hold=hold), times=1)
            late = group.create_task(client.ping())
            await hold.reached()
            await client.ping()
            hold.release()
            await late
            assert source.refusals == [Credentials("ann", "expired")]

    async def test_may_be_none(self) -> None:
        async with FakeRegistry(tokens=Tokens()) as upstream, client_with(upstream, Changing()) as client:
            await client.ping()
            assert upstream.authorizations("/token") == []

    async def test_that_cannot_be_found_are_named(self) -> None:
        class Failing(Changing):
            async def get(self) -> Credentials | None:
                raise UpstreamDenied("the helper failed")

        async with FakeRegistry(tokens=Tokens()) as upstream, client_with(upstream, Failing()) as client:
            with pytest.raises(UpstreamDenied, match="the helper failed"):
                await client.ping()


class TestIdentityToken:
    async def test_is_exchanged_for_a_token_of_the_registry(self) -> None:
        """A token in place of a password goes into the body of a request, as OAuth 2 says."""
        forms: list[dict[str, object]] = []

        async def exchange(request: web.Request) -> web.StreamResponse:
            forms.append(dict(await request.post()))
            return web.json_response({"access_token": "known", "expires_in": 60})

        tokens = Tokens()
        tokens.valid.add("known")
        identity = Credentials(IDENTITY_TOKEN_USER, "refresh-me")
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=identity) as client:
            upstream.faults.on("POST /token", Fault(answer=exchange))
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            assert upstream.authorizations("/token") == []
            assert "refresh-me" not in str([request.query for request in upstream.requests])
        assert forms == [
            {
                "grant_type": "refresh_token",
                "refresh_token": "refresh-me",
                "client_id": "replicator",
                "service": "fake.registry",
                "scope": "repository:library/alpine:pull",
            }
        ]


class TestForeignRealm:
    """A realm is a URL that the registry's answer chose: it must not collect credentials."""

    async def test_does_not_get_the_credentials(self) -> None:
        """The configured password stays home whatever realm is named (CVE-2026-33540, CVE-2026-48978)."""
        tokens = tokens_for_ann()
        async with (
            FakeTokenServer(tokens) as foreign,
            FakeRegistry(tokens=tokens, realm=foreign.realm) as upstream,
            client_of(upstream, credentials=CREDENTIALS) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            with pytest.raises(UpstreamDenied, match="not trusted with the credentials"):
                await client.get_manifest(ALPINE, TAG)
            assert foreign.requests == []

    async def test_gets_them_when_its_host_and_port_are_configured(self) -> None:
        tokens = tokens_for_ann()
        async with (
            FakeTokenServer(tokens) as service,
            FakeRegistry(tokens=tokens, realm=service.realm) as upstream,
            client_of(upstream, credentials=CREDENTIALS, realm_hosts=frozenset({service.authority})) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            assert service.authorizations() == [basic("ann", "correct-horse")]

    async def test_gets_an_anonymous_request(self) -> None:
        tokens = Tokens()
        async with (
            FakeTokenServer(tokens) as service,
            FakeRegistry(tokens=tokens, realm=service.realm) as upstream,
            client_of(upstream) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            await client.get_manifest(ALPINE, TAG)
            assert service.authorizations() == []
            assert service.count() == 1

    @pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
    async def test_in_a_network_closer_than_the_registry_is_not_asked(self, host: str) -> None:
        """A realm cannot make us call the cloud's metadata service (CVE-2020-13788), not even anonymously."""
        async with (
            FakeRegistry(tokens=Tokens(), realm=f"http://{host}/latest") as upstream,
            client_of(upstream) as client,
        ):
            with pytest.raises(UpstreamContent, match="internal network"):
                await client.get_manifest(ALPINE, TAG)

    @pytest.mark.parametrize(
        "realm",
        [
            "{url}\\\\@evil.example/token",
            "http://ann:x@{authority}/token",
            "file:///etc/passwd",
            "ftp://{authority}/token",
            "//evil.example/token",
            "token",
            "http://",
            "http://evil.example:99999/",
            "http://[::1/",
        ],
    )
    async def test_that_parsers_disagree_about_is_refused(self, realm: str) -> None:
        tokens = tokens_for_ann()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream, credentials=CREDENTIALS) as client:
            named = realm.format(url=upstream.url, authority=upstream.authority)
            upstream.challenge = f'Bearer realm="{named}"'
            with pytest.raises((UpstreamDenied, UpstreamContent)):
                await client.get_manifest(ALPINE, TAG)
            assert upstream.count("*token*") == 0

    async def test_behind_a_redirect_does_not_get_the_credentials(self) -> None:
        """Nor does a host that the trusted token service refers us to (CVE-2020-15157)."""
        tokens = tokens_for_ann()
        async with (
            FakeTokenServer(Tokens()) as foreign,
            FakeRegistry(tokens=tokens) as upstream,
            client_of(upstream, credentials=CREDENTIALS) as client,
        ):
            upstream.add_image(ALPINE, TAG)
            upstream.faults.on("/token", Fault(redirect=foreign.realm))
            with pytest.raises(UpstreamDenied):
                await client.get_manifest(ALPINE, TAG)
            assert foreign.count() == 1
            assert foreign.authorizations() == []


class TestPeer:
    async def test_sends_a_fresh_token_with_every_request(self) -> None:
        made: list[str] = []

        def make_token() -> str:
            made.append(f"signed-{len(made) + 1}")
            return made[-1]

        async with FakeRegistry() as upstream:
            image = upstream.add_image(ALPINE, TAG)
            client = UpstreamClient(endpoint_of(upstream), BearerAuthorizer(make_token), FakeClock())
            await client.get_manifest(ALPINE, TAG)
            await client.blob_exists(ALPINE, image.config)
            await client.close()
            assert upstream.authorizations() == ["Bearer signed-1", "Bearer signed-2"]

    async def test_refusal_is_denied_at_once(self) -> None:
        async with FakeRegistry(tokens=Tokens()) as upstream:
            client = UpstreamClient(endpoint_of(upstream), BearerAuthorizer(lambda: "signed"), FakeClock())
            with pytest.raises(UpstreamDenied):
                await client.get_manifest(ALPINE, TAG)
            await client.close()
            assert upstream.count() == 1


async def test_opened_client_answers_challenges_and_reports_outcomes() -> None:
    outcomes: list[tuple[str, str]] = []
    async with FakeRegistry(tokens=tokens_for_ann()) as upstream:
        client = open_client(
            endpoint_of(upstream, credentials=CREDENTIALS),
            FakeClock(),
            lambda method, outcome: outcomes.append((method, outcome)),
        )
        await client.ping()
        await client.close()
    assert outcomes == [("GET", "ok")]


def test_credentials_are_shown_nowhere() -> None:
    server = FakeServer()
    endpoint = endpoint_of(server, url="https://registry.example", credentials=CREDENTIALS)
    for text in (repr(CREDENTIALS), str(CREDENTIALS), f"{CREDENTIALS}", repr(endpoint), str(endpoint)):
        assert "correct-horse" not in text
