"""The answer to an upstream's challenge: Basic, or a token of the service that the challenge names.

The registry's answer says where the token service is, so it could say anything: our credentials go to a realm only
where `core.challenge.realm_is_trusted` says so, and without credentials a realm is still just a host that the
upstream named (CVE-2026-33540, CVE-2014-5277). Tokens are kept per repository and actions until shortly before they
expire; however many requests need one at the same time, the service is asked once and every one of them gets its
answer or its failure.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from replicator.core.challenge import Challenge, parse_challenge, realm_is_trusted
from replicator.core.errors import (
    UpstreamContent,
    UpstreamDenied,
    UpstreamNotFound,
    UpstreamRefused,
)
from replicator.upstream.body import read_bounded
from replicator.upstream.endpoint import Credentials, UpstreamEndpoint, origin_of
from replicator.upstream.errors import failure, translated
from replicator.upstream.session import Lane, Outgoing, Session, finish, parse_url
from replicator.upstream.single_flight import SingleFlight

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
    url: URL
    with_credentials: bool
    lane: Lane


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str
    expires_at: float
    request: _TokenRequest


class ChallengeAuthorizer:
    """Answers Basic and Bearer challenges of a registry, with the endpoint's credentials or as nobody in particular."""

    def __init__(
        self, endpoint: UpstreamEndpoint, session: Session, clock: Clock, *, max_tokens: int = MAX_TOKENS
    ) -> None:
        self._max_tokens = max_tokens
        self._endpoint = endpoint
        self._session = session
        self._clock = clock
        self._basic: Mapping[str, str] | None = None
        self._tokens: OrderedDict[_Grant, _Token] = OrderedDict()
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
            return self._basic
        grant = _Grant(repository, actions, mount_from)
        token = self._tokens.get(grant)
        if token is None:
            return _NO_HEADERS
        self._tokens.move_to_end(grant)
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
            return self._accept_basic(refused)
        if challenge.scheme != "bearer":
            return False
        grant = _Grant(repository, actions, mount_from)
        request = self._token_request(challenge, grant)
        current = self._tokens.get(grant)
        if current is None or current.authorization == refused.get("Authorization"):
            await self._fetched(grant, request)
        return True

    async def close(self) -> None:
        """Cancel the token requests under way."""
        await self._flights.close()

    def _accept_basic(self, refused: Mapping[str, str]) -> bool:
        credentials = self._endpoint.credentials
        if credentials is None:
            return False
        self._basic = _basic(credentials)
        return self._basic != refused

    def _token_request(self, challenge: Challenge, grant: _Grant) -> _TokenRequest:
        name, realm = self._endpoint.name, challenge.parameters.get("realm", "")
        url = parse_url(realm)
        trusted = realm_is_trusted(self._endpoint.api_url, realm, self._endpoint.realm_hosts)
        with_credentials = self._endpoint.credentials is not None
        if with_credentials and not trusted:
            raise UpstreamDenied(f"{name}: its token service {origin_of(url)} is not trusted with the credentials")
        if self._endpoint.origin.scheme == "https" and url.scheme != "https":
            raise UpstreamDenied(f"{name}: its token service {origin_of(url)} does not speak https")
        query = [(key, value) for key in ("service",) if (value := challenge.parameters.get(key))]
        query += [("scope", scope) for scope in grant.scopes(challenge)]
        lane = Lane.CONFIGURED if trusted else Lane.NAMED
        return _TokenRequest(url.extend_query(query), with_credentials, lane)

    async def _fetched(self, grant: _Grant, request: _TokenRequest) -> _Token:
        return await self._flights.run(grant, lambda: self._fetch(grant, request))

    async def _fetch(self, grant: _Grant, request: _TokenRequest) -> _Token:
        asked_at = self._clock.monotonic()
        what = f"{self._endpoint.name}: token service {origin_of(request.url)}"
        with translated(what):
            async with asyncio.timeout(self._endpoint.total_timeout):
                response = await self._session.send(self._outgoing(request))
                try:
                    content = await self._read(what, response)
                finally:
                    finish(response)
        value, lifetime = _parse_answer(what, content)
        token = _Token(f"Bearer {value}", asked_at + lifetime - min(_LEEWAY, lifetime / 4), request)
        self._tokens[grant] = token
        self._tokens.move_to_end(grant)
        while len(self._tokens) > self._max_tokens:
            self._tokens.popitem(last=False)
        return token

    def _outgoing(self, request: _TokenRequest) -> Outgoing:
        credentials = self._endpoint.credentials if request.with_credentials else None
        authorization = _NO_HEADERS if credentials is None else _basic(credentials)
        return Outgoing("GET", request.url, {}, authorization, lane=request.lane)

    async def _read(self, what: str, response: aiohttp.ClientResponse) -> bytes:
        content = await read_bounded(response, MAX_TOKEN_ANSWER, what)
        if response.status == _OK:
            return content
        error = failure(what, response.status, response.headers, content, self._clock.now)
        if isinstance(error, UpstreamNotFound | UpstreamRefused):
            # A token service without our answer says nothing about the image that was asked for.
            raise UpstreamDenied(str(error))
        raise error


def _basic(credentials: Credentials) -> Mapping[str, str]:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


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
