"""The answer to an upstream's challenge: Basic, or a token of the service that the challenge names.

The registry's answer says where the token service is, so it could say anything: our credentials go to a realm only
where `core.challenge.realm_is_trusted` says so, and without credentials a realm is still just a host that the
upstream named (CVE-2026-33540, CVE-2014-5277). Tokens are kept per repository and actions until shortly before they
expire; however many requests need one at the same time, the service is asked once and every one of them gets its
answer or its failure. A service that asks us to slow down is left alone, and so is the registry by those who would need
a new token for it.

Credentials may change, and whoever keeps them hears when they were refused: they are tried once more if they are others
then.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from replicator.core.bounded import BoundedMap
from replicator.core.challenge import Challenge, parse_challenge, realm_is_trusted
from replicator.core.errors import (
    UpstreamContent,
    UpstreamDenied,
    UpstreamNotFound,
    UpstreamRefused,
)
from replicator.upstream.body import read_bounded
from replicator.upstream.credentials import IDENTITY_TOKEN_USER
from replicator.upstream.endpoint import (
    Credentials,
    CredentialSource,
    FixedCredentials,
    UpstreamEndpoint,
    basic_authorization,
    origin_of,
)
from replicator.upstream.errors import CredentialsRefused, failure, translated
from replicator.upstream.network_guard import Lane
from replicator.upstream.pauses import Pauses
from replicator.upstream.session import Outgoing, Session, finish
from replicator.upstream.single_flight import SingleFlight
from replicator.upstream.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp
    from yarl import URL

    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName

DEFAULT_LIFETIME = 60.0
MAX_TOKEN_ANSWER = 1024 * 1024
MAX_TOKENS = 1000
_LEEWAY = 10.0
_MAX_LIFETIME = 10.0 * 365 * 24 * 3600
_OK = 200
_UNAUTHORIZED = 401
_TOKENS = "tokens"
_CLIENT = "replicator"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TOKEN = re.compile(r"[!-~]{1,65536}")
_NO_HEADERS: Mapping[str, str] = {}


class _Grant(NamedTuple):
    """What a token is for."""

    repository: RepositoryName | None
    actions: tuple[str, ...]
    mount_from: RepositoryName | None

    def scopes(self, challenge: Challenge) -> tuple[str, ...]:
        """Return the scopes to ask for: the registry's own words where it gave some, since it alone knows its names."""
        stated = tuple(challenge.parameters.get("scope", "").split())
        if not stated and self.repository is not None:
            stated = (f"repository:{self.repository}:{','.join(self.actions)}",)
        mount = () if self.mount_from is None else (f"repository:{self.mount_from}:pull",)
        return tuple(dict.fromkeys(stated + mount))


@dataclass(frozen=True, slots=True)
class _TokenRequest:
    realm: URL
    service: str | None
    scopes: tuple[str, ...]
    is_trusted: bool

    def outgoing(self, credentials: Credentials | None) -> Outgoing:
        """Return the request, with our credentials: a name and a password, or a token to exchange (RFC 6749 §6)."""
        lane = Lane.CONFIGURED if self.is_trusted else Lane.NAMED
        named = [] if self.service is None else [("service", self.service)]
        if credentials is not None and credentials.username == IDENTITY_TOKEN_USER:
            form = [("grant_type", "refresh_token"), ("refresh_token", credentials.password), ("client_id", _CLIENT)]
            form += [*named, ("scope", " ".join(self.scopes))]
            return Outgoing("POST", self.realm, _FORM, body=urlencode(form).encode(), lane=lane)
        url = self.realm.extend_query([*named, *(("scope", scope) for scope in self.scopes)])
        authorization = {} if credentials is None else {"Authorization": basic_authorization(credentials)}
        return Outgoing("GET", url, {}, authorization, lane=lane)


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str
    expires_at: float
    request: _TokenRequest


class ChallengeAuthorizer:
    """Answers Basic and Bearer challenges of a registry, with our credentials or as nobody in particular.

    `credentials` replace those of the endpoint.
    """

    def __init__(
        self,
        endpoint: UpstreamEndpoint,
        session: Session,
        clock: Clock,
        *,
        credentials: CredentialSource | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._endpoint = endpoint
        self._session = session
        self._clock = clock
        self._credentials = credentials or FixedCredentials(endpoint.credentials)
        self._pauses = Pauses(f"{endpoint.name}: token service", clock)
        self._basic: Credentials | None = None
        self._tokens: BoundedMap[_Grant, _Token] = BoundedMap(max_tokens)
        self._flights: SingleFlight[_Grant, _Token] = SingleFlight()

    async def headers(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        *,
        mount_from: RepositoryName | None = None,
    ) -> Mapping[str, str]:
        """Return the Authorization that served last time, with a new token where the old one is about to expire."""
        if self._basic is not None:
            return {"Authorization": basic_authorization(self._basic)}
        grant = _Grant(repository, actions, mount_from)
        token = self._tokens.find(grant)
        if token is None:
            self._pauses.check(_TOKENS)
            return _NO_HEADERS
        if token.expires_at <= self._clock.monotonic():
            token = await self._fetched(grant, token.request)
        return {"Authorization": token.authorization}

    async def challenged(
        self,
        repository: RepositoryName | None,
        actions: tuple[str, ...],
        www_authenticate: str,
        *,
        mount_from: RepositoryName | None = None,
        refused: Mapping[str, str],
    ) -> bool:
        """Get what the challenge asks for, unless another request got it meanwhile."""
        challenge = parse_challenge(www_authenticate)
        if challenge is None:
            return False
        if challenge.scheme == "basic":
            return await self._accept_basic(refused)
        if challenge.scheme != "bearer":
            return False
        grant = _Grant(repository, actions, mount_from)
        request = self._token_request(challenge, grant)
        current = self._tokens.peek(grant)
        if current is None or current.authorization == refused.get("Authorization"):
            await self._fetched(grant, request)
        return True

    @property
    def paused_for(self) -> float:
        """Seconds for which no new token can be had, because the token service asked us to slow down."""
        return self._pauses.left.get(_TOKENS, 0.0)

    async def close(self) -> None:
        """Cancel the token requests under way."""
        await self._flights.close()

    async def _accept_basic(self, refused: Mapping[str, str]) -> bool:
        sent, current = refused.get("Authorization"), self._basic
        if current is not None and basic_authorization(current) == sent:
            self._credentials.refused(current)
        self._basic = await self._credentials.get()
        return self._basic is not None and basic_authorization(self._basic) != sent

    def _token_request(self, challenge: Challenge, grant: _Grant) -> _TokenRequest:
        name, realm = self._endpoint.name, challenge.parameters.get("realm", "")
        url = parse_url(realm)
        if self._endpoint.origin.scheme == "https" and url.scheme != "https":
            raise UpstreamDenied(f"{name}: its token service {origin_of(url)} does not speak https")
        trusted = realm_is_trusted(self._endpoint.api_url, realm, self._endpoint.realm_hosts)
        return _TokenRequest(url, challenge.parameters.get("service") or None, grant.scopes(challenge), trusted)

    async def _fetched(self, grant: _Grant, request: _TokenRequest) -> _Token:
        return await self._flights.run(grant, lambda: self._fetch(grant, request))

    async def _fetch(self, grant: _Grant, request: _TokenRequest) -> _Token:
        self._pauses.check(_TOKENS)
        asked_at = self._clock.monotonic()
        what = f"{self._endpoint.name}: token service {origin_of(request.realm)}"
        content = await self._answer(what, request)
        value, lifetime = _parse_answer(what, content)
        token = _Token(f"Bearer {value}", asked_at + lifetime - min(_LEEWAY, lifetime / 4), request)
        self._tokens.put(grant, token)
        return token

    async def _answer(self, what: str, request: _TokenRequest) -> bytes:
        """Return the service's answer; credentials that it refuses may have changed meanwhile, once."""
        credentials = await self._credentials.get()
        try:
            return await self._ask(what, request, credentials)
        except CredentialsRefused:
            assert credentials is not None  # noqa: S101 - nobody in particular is not refused
            self._credentials.refused(credentials)
            current = await self._credentials.get()
            if current is None or current == credentials:
                raise
        return await self._ask(what, request, current)

    async def _ask(self, what: str, request: _TokenRequest, credentials: Credentials | None) -> bytes:
        if credentials is not None and not request.is_trusted:
            raise UpstreamDenied(f"{what} is not trusted with the credentials")
        with translated(what):
            async with asyncio.timeout(self._endpoint.total_timeout):
                response = await self._session.send(request.outgoing(credentials))
                try:
                    return await self._read(what, response, with_credentials=credentials is not None)
                finally:
                    finish(response)

    async def _read(self, what: str, response: aiohttp.ClientResponse, *, with_credentials: bool) -> bytes:
        content = await read_bounded(response, MAX_TOKEN_ANSWER, what)
        if response.status == _OK:
            self._pauses.answered(_TOKENS)
            return content
        error = failure(what, response.status, response.headers, content, self._clock.now)
        self._pauses.failed(_TOKENS, response.status, error)
        if response.status == _UNAUTHORIZED and with_credentials:
            raise CredentialsRefused(str(error))
        if isinstance(error, UpstreamNotFound | UpstreamRefused):
            # A token service without our answer says nothing about the image that was asked for.
            raise UpstreamDenied(str(error))
        raise error


def _parse_answer(what: str, content: bytes) -> tuple[str, float]:
    """Return the token and its lifetime: 60 seconds unless stated ("Token Authentication Specification")."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UpstreamContent(f"{what}: the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise UpstreamContent(f"{what}: expected a JSON object")
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise UpstreamContent(f"{what}: the answer holds no token")
    lifetime = answer.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime < _MAX_LIFETIME:
        return value, DEFAULT_LIFETIME
    return value, float(lifetime)
