"""Lists that an upstream keeps, read page after page: the tags of a repository, the referrers of an image.

A list may be long, endless, or lead in circles (CVE-2023-33957, CVE-2026-23991): pages, bytes, names and time are
bounded, the next page is looked for at the registry itself only, and what is not the whole list says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.errors import (
    InvalidInput,
    InvalidTag,
    UpstreamContent,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
)
from replicator.core.manifest import MAX_MANIFEST_BYTES, Descriptor
from replicator.core.media_types import OCI_INDEX, without_parameters
from replicator.core.message_json import object_of, parse_message
from replicator.core.names import Tag, parse_tag
from replicator.upstream.body import read_bounded
from replicator.upstream.endpoint import UpstreamEndpoint, origin_of
from replicator.upstream.large_manifests import parse_beside
from replicator.upstream.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from yarl import URL

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.upstream.calls import Call, Calls
    from replicator.upstream.exchange import Exchange

MAX_TAGS = 50_000
MAX_REFERRERS = 10_000
MAX_PAGES = 100
MAX_PAGE_BYTES = 4 * 1024 * 1024

_PAGE_SIZE = 1000
_MAX_LINK = 8192
_NEXT = re.compile(r"<([^<>]*)>\s*;(?:[^<>,]*;)?\s*rel\s*=\s*\"?next\"?\s*(?:[;,]|$)", re.IGNORECASE)
_JSON = "application/json"
_MAX_ALGORITHM = 32
_MAX_ENCODED = 64


@dataclass(frozen=True, slots=True)
class TagList:
    """The tags of a repository, in the upstream's order; `complete` tells whether these are all of them."""

    tags: tuple[Tag, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class ReferrerList:
    """The referrers of an image; `complete` tells whether these are all of them."""

    descriptors: tuple[Descriptor, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Page:
    content: bytes
    content_type: str
    next_url: URL | None
    is_last: bool


class Listings:
    """The lists of one upstream. Raises UpstreamError."""

    def __init__(self, endpoint: UpstreamEndpoint, exchange: Exchange, calls: Calls, clock: Clock) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._calls = calls
        self._clock = clock

    async def tags(self, repository: RepositoryName, limit_names: int, limit_pages: int) -> TagList:
        """Return the tags of a repository; see `UpstreamClient.list_tags`."""
        call = self._calls.tags(repository, _PAGE_SIZE)
        found: dict[Tag, None] = {}
        walk = _Walk(self._clock.monotonic() + self._endpoint.total_timeout, limit_pages)
        while True:
            page = await self._page(call, MAX_PAGE_BYTES)
            found.update(dict.fromkeys(_tags(call.what, page)))
            if page.is_last or len(found) > limit_names or not walk.goes_on(page.next_url, self._clock.monotonic()):
                complete = page.is_last and len(found) <= limit_names
                return TagList(tuple(found)[:limit_names], complete)
            call = self._next(call, page)

    async def referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        limit: int,
        limit_pages: int,
    ) -> ReferrerList:
        """Return the referrers of an image; see `UpstreamClient.list_referrers`."""
        call = self._calls.referrers(repository, subject, artifact_type)
        found: dict[Digest, Descriptor] = {}
        walk = _Walk(self._clock.monotonic() + self._endpoint.total_timeout, limit_pages)
        try:
            page = await self._page(call, MAX_MANIFEST_BYTES)
        except (UpstreamNotFound, UpstreamRefused):
            return await self._tagged(repository, subject, artifact_type, limit)
        while True:
            found.update((one.digest, one) for one in await _descriptors(call.what, page))
            if page.is_last or len(found) > limit or not walk.goes_on(page.next_url, self._clock.monotonic()):
                return _referrers(tuple(found.values()), artifact_type, limit, is_last=page.is_last)
            call = self._next(call, page)
            page = await self._page(call, MAX_MANIFEST_BYTES)

    async def _tagged(
        self, repository: RepositoryName, subject: Digest, artifact_type: str | None, limit: int
    ) -> ReferrerList:
        """Return what is listed in an index under a tag (distribution-spec, "Referrers Tag Schema")."""
        call = self._calls.manifest("GET", repository, referrers_tag(subject))
        try:
            page = await self._page(call, MAX_MANIFEST_BYTES)
        except UpstreamNotFound:
            return ReferrerList((), complete=True)
        return _referrers(await _descriptors(call.what, page), artifact_type, limit, is_last=True)

    async def _page(self, call: Call, limit: int) -> _Page:
        async with self._exchange.small(call, HTTPStatus.OK) as response:
            content_type = without_parameters(response.headers.get("Content-Type", ""))
            content = await read_bounded(response, limit, call.what)
            link = _next_link(response)
            return _Page(content, content_type, self._next_url(call, link), is_last=link is None)

    def _next_url(self, call: Call, link: str | None) -> URL | None:
        """Return where the next page is; None where the upstream's link leads anywhere but to itself."""
        if link is None:
            return None
        try:
            url = parse_url(link, call.url)
        except UpstreamError:
            return None
        return url.with_fragment(None) if origin_of(url) == self._endpoint.origin else None

    def _next(self, call: Call, page: _Page) -> Call:
        assert page.next_url is not None  # noqa: S101 - the walk goes on
        return self._calls.next_page(call, page.next_url)


class _Walk:
    """How far a list is followed: so many pages, none of them twice, until a point in time."""

    def __init__(self, until: float, pages: int) -> None:
        self._until = until
        self._left = pages
        self._seen: set[URL] = set()

    def goes_on(self, url: URL | None, now: float) -> bool:
        """Tell whether the page at `url` is still asked for."""
        self._left -= 1
        if url is None or url in self._seen or self._left <= 0 or now >= self._until:
            return False
        self._seen.add(url)
        return True


def referrers_tag(subject: Digest) -> Tag:
    """Return the tag that lists the referrers of an image where the registry does not."""
    algorithm, _, encoded = subject.partition(":")
    return Tag(f"{algorithm[:_MAX_ALGORITHM]}-{encoded[:_MAX_ENCODED]}")


def _next_link(response: aiohttp.ClientResponse) -> str | None:
    """Return the link to the next page (RFC 8288), or None on the last one."""
    headers = (header[:_MAX_LINK] for header in response.headers.getall("Link", ()))
    matches = (_NEXT.search(header) for header in headers)
    return next((match[1] for match in matches if match is not None), None)


def _tags(what: str, page: _Page) -> Sequence[Tag]:
    if page.content_type != _JSON:
        raise UpstreamContent(f"{what}: expected a list of tags, got media type {page.content_type[:100]!r}")
    try:
        listed = object_of(parse_message(page.content), "the list of tags").get("tags")
    except InvalidInput as error:
        raise UpstreamContent(f"{what}: {error}") from error
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UpstreamContent(f"{what}: expected a list of tags")
    parsed = (_tag(name) for name in listed)
    return [tag for tag in parsed if tag is not None]


def _tag(name: str) -> Tag | None:
    """Return a tag, or None for a name that nobody could ask us for."""
    try:
        return parse_tag(name)
    except InvalidTag:
        return None


async def _descriptors(what: str, page: _Page) -> Sequence[Descriptor]:
    if page.content_type != OCI_INDEX:
        raise UpstreamContent(f"{what}: expected an index, got media type {page.content_type[:100]!r}")
    try:
        return (await parse_beside(page.content, page.content_type)).manifests
    except InvalidInput as error:
        raise UpstreamContent(f"{what}: {error}") from error


def _referrers(found: Sequence[Descriptor], artifact_type: str | None, limit: int, *, is_last: bool) -> ReferrerList:
    wanted = [one for one in found if artifact_type is None or one.artifact_type == artifact_type]
    complete = is_last and len(found) <= limit
    return ReferrerList(tuple(wanted[:limit]), complete)
