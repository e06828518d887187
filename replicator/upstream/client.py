"""A client of one upstream registry, to pull from and to push to; a peer is one like any other.

What it returns was checked: a manifest parses and has the digest it was asked by, a partial blob starts where it
says. What it raises is an UpstreamError that names the upstream and the reason. Nothing an upstream does makes it
wait without end, hold more than a bounded amount of memory, or show a credential to another host.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.digest import CANONICAL_ALGORITHM, Digest, algorithm_of, digest_of, finished, is_digest, new_hasher
from replicator.core.errors import InvalidInput, UpstreamContent, UpstreamDenied, UpstreamNotFound, UpstreamRefused
from replicator.core.manifest import MAX_MANIFEST_BYTES
from replicator.core.media_types import MANIFEST_TYPES, OCI_INDEX, without_parameters
from replicator.core.reference import Reference, as_digest
from replicator.upstream.auth import Authorizer, ChallengeAuthorizer
from replicator.upstream.body import BlobStream, Patience, read_bounded, stream_chunks
from replicator.upstream.calls import Call, Calls
from replicator.upstream.errors import RangeRefused, translated
from replicator.upstream.exchange import Exchange, Observe
from replicator.upstream.large_manifests import parse_beside
from replicator.upstream.limits import UpstreamLimits
from replicator.upstream.listings import MAX_PAGES, MAX_REFERRERS, MAX_TAGS, Listings, ReferrerList, TagList
from replicator.upstream.push import Push
from replicator.upstream.session import Session
from replicator.upstream.upload_requests import BlobToSend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import aiohttp

    from replicator.core.circuit_breaker import BreakerState
    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.rate_budget import RateLimit
    from replicator.upstream.breaker import Watch
    from replicator.upstream.endpoint import CredentialSource, UpstreamEndpoint
    from replicator.upstream.upload_requests import ReadFrom

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_AGE = re.compile(r"\d{1,9}", re.ASCII)
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What an upstream says of a manifest without sending it. Not verified: a reason to fetch, never a proof."""

    media_type: str
    digest: Digest | None
    size: int | None
    age: float = 0.0
    """Seconds for which the answer had been kept by a cache."""


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest as it came; `digest` was computed here from `content`, which parses as `media_type`."""

    content: bytes
    media_type: str
    digest: Digest
    age: float = 0.0
    """Seconds for which the answer had been kept by a cache."""
    descriptors: int = 0
    """How many blobs and manifests it names."""


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """How an upstream is doing, as far as its client knows.

    `paused_for` holds the seconds for which it wants no requests, by their kind: `manifests` for all that is small and
    read, `blobs`, `pushes`, `tokens`. `last_error` is why the last call failed, None when it did not.
    """

    breaker: BreakerState
    paused_for: Mapping[str, float]
    rate_limit: RateLimit | None
    last_error: str | None


class UpstreamClient:
    """One upstream. Close it when done; calls in flight then fail. Cancelling a call closes its connection.

    `observe` is told the method and the outcome of every call: `ok`, `not_found`, `denied`, `throttled`, `timeout`,
    `unavailable`, `content`, `refused`, `not_asked` when nothing was sent because the upstream is paused or known to be
    broken, `error` for a failure of our own, `abandoned` when the caller left. The methods raise UpstreamError, and
    ShuttingDown once the client is closed. The client is to be used in one event loop.
    """

    def __init__(
        self,
        endpoint: UpstreamEndpoint,
        authorizer: Authorizer,
        clock: Clock,
        observe: Observe | None = None,
        *,
        session: Session | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._authorizer = authorizer
        self._session = session or Session(endpoint)
        self._limits = UpstreamLimits(endpoint, clock)
        self._calls = Calls(endpoint)
        self._exchange = Exchange(endpoint, authorizer, self._session, self._limits, clock, observe)
        self._push = Push(endpoint, self._exchange, self._calls, self._limits, clock)
        self._listings = Listings(endpoint, self._exchange, self._calls, clock)

    @property
    def health(self) -> UpstreamHealth:
        """How the upstream is doing now."""
        paused, tokens = dict(self._exchange.pauses.left), self._authorizer.paused_for
        if tokens:
            paused["tokens"] = tokens
        breaker = self._exchange.breaker
        return UpstreamHealth(breaker.state, paused, self._exchange.rate_limit, breaker.last_error)

    async def close(self) -> None:
        """Close every connection and end what is under way."""
        await self._authorizer.close()
        await self._session.close()

    async def ping(self) -> None:
        """Return if the upstream speaks the protocol and accepts us (distribution-spec, end-1)."""
        async with self._exchange.small(self._calls.ping(), HTTPStatus.OK):
            pass

    async def head_manifest(self, repository: RepositoryName, reference: Reference) -> ManifestHead:
        """Return what the upstream holds under `reference`; costs no pull at registries that count pulls.

        Raises UpstreamContent when the answer is not a manifest's, or is another digest's than the one asked for.
        """
        call = self._calls.manifest("HEAD", repository, reference)
        async with self._exchange.small(call, HTTPStatus.OK) as response:
            media_type = without_parameters(response.headers.get("Content-Type", ""))
            if media_type not in MANIFEST_TYPES:
                raise UpstreamContent(f"{call.what}: expected a manifest, got media type {media_type[:100]!r}")
            wanted, stated = as_digest(reference), _stated_digest(response)
            if wanted is not None and stated not in {None, wanted}:
                raise UpstreamContent(f"{call.what}: answered for another digest, {stated}")
            return ManifestHead(media_type, wanted or stated, response.content_length, _age(response))

    async def get_manifest(self, repository: RepositoryName, reference: Reference) -> FetchedManifest:
        """Fetch a manifest and verify it.

        Raises UpstreamContent when it is too large (the rest is not read), does not parse strictly, has another media
        type than stated, or does not have the digest it was asked by, or else the one that the upstream states.
        """
        call = self._calls.manifest("GET", repository, reference)
        async with self._exchange.small(call, HTTPStatus.OK) as response:
            content = await read_bounded(response, MAX_MANIFEST_BYTES, call.what)
            verified = await _verified(call, reference, content, response.headers.get("Content-Type"))
            fetched = replace(verified, age=_age(response))
            stated = None if as_digest(reference) is not None else _stated_digest(response)
        if stated is None or digest_of(content, algorithm_of(stated)) == stated:
            return fetched
        return await self._confirmed(call, repository, fetched, stated)

    async def _confirmed(
        self, call: Call, repository: RepositoryName, fetched: FetchedManifest, stated: Digest
    ) -> FetchedManifest:
        """Return what came for a tag under another digest than it was announced with, if it is not damaged.

        A registry that states wrong digests has it under the right one; what was damaged on its way is nowhere.
        """
        try:
            await self.get_manifest(repository, fetched.digest)
        except UpstreamNotFound as error:
            raise UpstreamContent(
                f"{call.what}: the content does not have the digest that it was announced with, {stated}"
            ) from error
        return fetched

    async def blob_exists(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether the upstream has a blob in `repository`."""
        try:
            async with self._exchange.small(self._calls.blob("HEAD", repository, digest), HTTPStatus.OK):
                return True
        except UpstreamNotFound:
            return False

    @asynccontextmanager
    async def open_blob(self, repository: RepositoryName, digest: Digest, start: int = 0) -> AsyncIterator[BlobStream]:
        """Open a blob from offset `start`; leaving before the end closes the connection.

        An upstream that cannot serve from there serves the whole: look at the stream's own `start`. Raises
        UpstreamContent when a partial answer is not the part asked for.
        """
        async with AsyncExitStack() as stack:
            watch = stack.enter_context(self._exchange.watched("GET"))
            call = self._calls.blob("GET", repository, digest, start)
            try:
                response = await self._blob_answer(stack, call, watch)
            except RangeRefused:
                call = self._calls.blob("GET", repository, digest)
                response = await self._blob_answer(stack, call, watch)
            size, begins = _extent(call, response, start)
            chunks = stream_chunks(
                response,
                None if size is None else size - begins,
                self._limits,
                self._clock,
                Patience(self.endpoint.stall_timeout, call.what),
                call.what,
            )
            await stack.enter_async_context(aclosing(chunks))
            yield BlobStream(size, begins, chunks)

    async def list_tags(
        self, repository: RepositoryName, limit_names: int = MAX_TAGS, limit_pages: int = MAX_PAGES
    ) -> TagList:
        """Return the tags of a repository (distribution-spec, end-8), at most so many, from at most so many pages.

        A list that is longer, leads elsewhere or in circles, or takes longer than the total timeout, is not `complete`.
        """
        return await self._listings.tags(repository, limit_names, limit_pages)

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None = None,
        *,
        limit: int = MAX_REFERRERS,
        limit_pages: int = MAX_PAGES,
    ) -> ReferrerList:
        """Return the referrers of an image, those of `artifact_type` alone if given, bounded as `list_tags` is.

        Where the upstream has no such list (distribution-spec, end-12), the index under the subject's referrers tag is
        it. Raises UpstreamContent when a list does not parse strictly.
        """
        return await self._listings.referrers(repository, subject, artifact_type, limit, limit_pages)

    async def put_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        read_from: ReadFrom,
        mount_from: RepositoryName | None = None,
        *,
        discover: bool = False,
    ) -> bool:
        """Put a blob into `repository`; return True when bytes were sent, False when it could be mounted.

        It is mounted from `mount_from`, or with `discover` from any repository that the registry itself finds it in.
        A large one goes on where the registry stands when a connection breaks. Raises UpstreamContent when the
        upstream sends us elsewhere for the upload or takes in another digest, SizeMismatch when `read_from` does not
        give as many bytes as it should, and whatever it raises.
        """
        return await self._push.put_blob(BlobToSend(repository, digest, size, read_from), mount_from, discover=discover)

    async def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        media_type: str,
        headers: Mapping[str, str] = _NO_HEADERS,
        tags: Sequence[Tag] = (),
    ) -> None:
        """Put a manifest under a tag, or under its digest and any `tags` (which a registry may not know, and ignore).

        Raises UpstreamContent when the upstream took it for another digest.
        """
        content_type = {"Content-Type": media_type}
        await self._push.put_manifest(repository, reference, content, {**headers, **content_type}, tags)

    async def delete_manifest(self, repository: RepositoryName, reference: Reference) -> None:
        """Delete a tag, or a manifest with its tags; raises UpstreamRefused where the upstream does not do that."""
        await self._push.delete_manifest(repository, reference)

    # What is really there, for whoever must not believe what a registry merely says

    async def holds_blob(self, repository: RepositoryName, digest: Digest, size: int) -> bool:
        """Tell whether the upstream can give a blob of this size: its last byte is fetched.

        Where the upstream cannot serve a part, the length of the whole counts; where it states none, the content.
        Raises UpstreamContent when it serves something else.
        """
        try:
            async with self.open_blob(repository, digest, max(0, size - 1)) as stream:
                if stream.size is None:
                    return await self._is_whole(digest, size, stream)
                if stream.size != size:
                    raise UpstreamContent(f"blob {digest}: expected {size} bytes, the upstream has {stream.size}")
                if stream.start:
                    async for _ in stream.chunks:
                        pass
                return True
        except UpstreamNotFound:
            return False

    async def holds_manifest(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether the upstream gives a manifest, whose digest is verified; raises UpstreamContent for another."""
        try:
            await self.get_manifest(repository, digest)
        except UpstreamNotFound:
            return False
        return True

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return the digest of what a tag gives, or None when there is no such tag."""
        try:
            return (await self.get_manifest(repository, tag)).digest
        except UpstreamNotFound:
            return None

    async def lists_referrers(self, repository: RepositoryName, subject: Digest) -> bool:
        """Tell whether the upstream lists referrers by itself (distribution-spec, "Listing Referrers")."""
        call = self._calls.referrers(repository, subject)
        try:
            async with self._exchange.small(call, HTTPStatus.OK) as response:
                return without_parameters(response.headers.get("Content-Type", "")) == OCI_INDEX
        except (UpstreamNotFound, UpstreamDenied, UpstreamRefused):
            return False

    async def _is_whole(self, digest: Digest, size: int, stream: BlobStream) -> bool:
        hasher, received = new_hasher(algorithm_of(digest)), 0
        async for chunk in stream.chunks:
            hasher.update(chunk)
            received += len(chunk)
            if received > size:
                break  # it may never end
        if received != size or finished(hasher) != digest:
            raise UpstreamContent(f"blob {digest}: the upstream has other content")
        return True

    async def _blob_answer(self, stack: AsyncExitStack, call: Call, watch: Watch) -> aiohttp.ClientResponse:
        """Return the answer to a blob call, within the total timeout; its body may take as long as it moves."""
        expected = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) if call.headers else (HTTPStatus.OK,)
        with translated(call.what):
            async with asyncio.timeout(self.endpoint.total_timeout):
                return await stack.enter_async_context(self._exchange.open(call, watch, *expected))


def open_client(
    endpoint: UpstreamEndpoint,
    clock: Clock,
    observe: Observe | None = None,
    *,
    credentials: CredentialSource | None = None,
) -> UpstreamClient:
    """Return a client that answers the registry's challenges, anonymously where there are no credentials.

    Those of the endpoint are used unless there is a source of others.
    """
    session = Session(endpoint)
    authorizer = ChallengeAuthorizer(endpoint, session, clock, credentials=credentials)
    return UpstreamClient(endpoint, authorizer, clock, observe, session=session)


async def _verified(call: Call, reference: Reference, content: bytes, content_type: str | None) -> FetchedManifest:
    wanted = as_digest(reference)
    digest = digest_of(content, CANONICAL_ALGORITHM if wanted is None else algorithm_of(wanted))
    if wanted is not None and digest != wanted:
        raise UpstreamContent(f"{call.what}: the content has another digest, {digest}")
    try:
        manifest = await parse_beside(content, content_type)
    except InvalidInput as error:
        raise UpstreamContent(f"{call.what}: {error}") from error
    return FetchedManifest(content, manifest.media_type, digest, descriptors=manifest.descriptor_count)


def _age(response: aiohttp.ClientResponse) -> float:
    stated = response.headers.get("Age", "")
    return float(stated) if _AGE.fullmatch(stated) else 0.0


def _stated_digest(response: aiohttp.ClientResponse) -> Digest | None:
    stated = response.headers.get("Docker-Content-Digest", "")
    return Digest(stated) if is_digest(stated) else None


def _extent(call: Call, response: aiohttp.ClientResponse, start: int) -> tuple[int | None, int]:
    """Return the blob's size, if stated, and where the answer begins; a part must be all that follows `start`."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return response.content_length, 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise UpstreamContent(f"{call.what}: a partial answer that does not say which part it is")
    first, last, size = map(int, match.groups())
    if first != start or last != size - 1:
        raise UpstreamContent(f"{call.what}: asked for bytes from {start}, got {first} to {last} of {size}")
    if response.content_length not in {None, size - first}:
        raise UpstreamContent(f"{call.what}: the length of a partial answer contradicts its range")
    return size, first
