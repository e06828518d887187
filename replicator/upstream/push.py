"""Putting content into another registry: blobs mounted or sent, then manifests; and taking manifests out of it.

A large blob whose connection breaks is continued where the registry says that it stands, over a bounded number of
connections; the registry verifies the digest of the whole at the end, so that what was resumed wrongly is never taken
in. What the registry says it took in is compared with what was sent.
"""

from __future__ import annotations

import random
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.digest import CANONICAL_ALGORITHM, algorithm_of, digest_of
from replicator.core.errors import (
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamUnavailable,
)
from replicator.core.reference import Reference, as_digest
from replicator.core.retry import Backoff
from replicator.upstream.errors import DigestRefused, RangeRefused
from replicator.upstream.upload_requests import BlobToSend, Position, UploadRequests, check_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName, Tag
    from replicator.upstream.calls import Calls
    from replicator.upstream.endpoint import UpstreamEndpoint
    from replicator.upstream.exchange import Exchange
    from replicator.upstream.limits import UpstreamLimits

RESUMABLE_FROM = 4 * 1024 * 1024
"""Bytes of a blob from which a broken connection is worth resuming; a smaller one saves a request by one PUT."""

_TRIES = 4
_PROGRESS = 1024 * 1024
"""Bytes after which a connection that breaks counts as the first to break."""
_BACKOFF = Backoff(initial=0.25, maximum=4.0)
_SESSION_LOST = (UpstreamRefused, UpstreamNotFound, RangeRefused)


class Push:
    """The push side of one upstream."""

    def __init__(
        self, endpoint: UpstreamEndpoint, exchange: Exchange, calls: Calls, limits: UpstreamLimits, clock: Clock
    ) -> None:
        self._exchange = exchange
        self._calls = calls
        self._clock = clock
        self._requests = UploadRequests(endpoint, exchange, calls, limits)

    async def put_blob(self, blob: BlobToSend, mount_from: RepositoryName | None, *, discover: bool) -> bool:
        """Put a blob; see `UpstreamClient.put_blob`."""
        position = await self._started(blob, mount_from, mount=discover or mount_from is not None)
        if position is None:
            return False
        if blob.size < RESUMABLE_FROM:
            await self._put_whole(blob, position)
        else:
            await self._put_resumably(blob, position)
        return True

    async def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        headers: Mapping[str, str],
        tags: Sequence[Tag] = (),
    ) -> None:
        """Put a manifest; see `UpstreamClient.put_manifest`."""
        call = self._calls.put_manifest(repository, reference, content, headers, tags)
        wanted = as_digest(reference)
        algorithm = CANONICAL_ALGORITHM if wanted is None else algorithm_of(wanted)
        async with self._exchange.small(call, HTTPStatus.CREATED) as response:
            check_digest(call.what, response.headers, digest_of(content, algorithm))

    async def delete_manifest(self, repository: RepositoryName, reference: Reference) -> None:
        """Delete a manifest or a tag; see `UpstreamClient.delete_manifest`."""
        call = self._calls.delete_manifest(repository, reference)
        try:
            # 202 says the specification; some registries say that there is nothing left to say.
            async with self._exchange.small(call, HTTPStatus.ACCEPTED, HTTPStatus.OK, HTTPStatus.NO_CONTENT):
                pass
        except DigestRefused as error:
            # So say registries that delete by digest only, such as distribution 2.
            raise UpstreamRefused(str(error)) from error

    async def _started(self, blob: BlobToSend, mount_from: RepositoryName | None, *, mount: bool) -> Position | None:
        """Return where to send the blob, or None when it was mounted."""
        if mount:
            try:
                return await self._requests.start(blob, mount_from, mount=True)
            except (UpstreamDenied, UpstreamNotFound, UpstreamRefused):
                # Registries that cannot mount should open a session instead, but some refuse: then ask for just that.
                pass
        return await self._requests.start(blob, None, mount=False)

    async def _put_whole(self, blob: BlobToSend, position: Position) -> None:
        try:
            await self._requests.put(blob, position.location)
        except Exception:
            await self._requests.cancel(blob, position.location)
            raise

    async def _put_resumably(self, blob: BlobToSend, position: Position) -> None:
        upload = _Upload(self._requests, self._clock, blob, position)
        try:
            await upload.send()
        except _CannotBePatched:
            await self._requests.cancel(blob, upload.position.location)
            fresh = await self._requests.start(blob, None, mount=False)
            assert fresh is not None  # noqa: S101 - only a mount needs no session
            await self._put_whole(blob, fresh)
        except Exception:
            await self._requests.cancel(blob, upload.position.location)
            raise


class _CannotBePatched(Exception):
    """The registry takes blobs in one piece only."""


class _Upload:
    """One blob on its way over as many connections as it takes. `position` is where its session stands."""

    def __init__(self, requests: UploadRequests, clock: Clock, blob: BlobToSend, position: Position) -> None:
        self.position = position
        self._requests = requests
        self._clock = clock
        self._blob = blob
        self._failures = 0
        self._resumed = False

    async def send(self) -> None:
        """Send the blob and have it verified. Raises _CannotBePatched before a byte was taken, else UpstreamError."""
        while self.position.offset < self._blob.size:
            try:
                self._reached(await self._requests.patch(self._blob, self.position))
            except UpstreamUnavailable as error:
                await self._pause(error)
                await self._resume()
            except _SESSION_LOST as error:
                if not self.position.offset and not self._resumed:
                    raise _CannotBePatched from error
                await self._pause(error)
                await self._begin_anew()
        try:
            await self._requests.commit(self._blob, self.position.location)
        except UpstreamRefused as error:
            if self._resumed:
                raise UpstreamContent(f"the upstream did not resume blob {self._blob.digest} as it said") from error
            raise

    def _reached(self, position: Position) -> None:
        if position.offset - self.position.offset >= _PROGRESS:
            self._failures = 0
        self.position = position

    async def _pause(self, error: UpstreamError) -> None:
        """Wait before going on after `error`, or raise it when that was tried often enough."""
        self._failures += 1
        if self._failures >= _TRIES:
            raise error
        await self._clock.sleep(_BACKOFF.delay(self._failures, random.random()))  # noqa: S311 - jitter, not a secret

    async def _resume(self) -> None:
        """Find out where the session stands; it stands at the beginning of a new one where the registry lost it."""
        self._resumed = True
        try:
            found = await self._requests.find(self._blob, self.position.location)
        except UpstreamUnavailable:
            return  # it is still down: the next request tells
        except UpstreamError:
            found = None
        if found is None:
            await self._begin_anew()
        else:
            self._reached(found)

    async def _begin_anew(self) -> None:
        await self._requests.cancel(self._blob, self.position.location)
        position = await self._requests.start(self._blob, None, mount=False)
        assert position is not None  # noqa: S101 - only a mount needs no session
        self.position = position
