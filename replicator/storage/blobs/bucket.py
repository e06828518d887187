"""An S3 bucket as this program uses one: put, size, ranges, delete, list. The only module that knows obstore.

obstore's errors are translated here. Their texts are kept out of ours, since they quote requests and answers; they stay
in reach as the cause.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from replicator.core.errors import CorruptBlob, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from obstore.store import ClientConfig, RetryConfig, S3Config

PART: Final = 8 * 1024 * 1024
"""Bytes of one part of an upload; larger only for a blob that would have too many."""

_MAX_PARTS: Final = 9_000
"""S3 takes 10,000 parts at most."""

_CONCURRENT_PARTS: Final = 4
_LIST_PAGE: Final = 1000
_DAY: Final = timedelta(days=1)


class Bucket:
    """A prefix of a bucket. Every method raises StorageUnavailable when the service cannot be used now."""

    def __init__(
        self,
        *,
        endpoint: str | None,
        bucket: str,
        prefix: str,
        region: str,
        access_key_id: str | None,
        secret_access_key: str | None,
        allow_http: bool,
        virtual_hosted: bool,
        timeout: float,
    ) -> None:
        stall = timedelta(seconds=timeout)
        # Without a key, obstore asks the environment and the machine for its identity.
        config: S3Config = {}
        if access_key_id is not None and secret_access_key is not None:
            config = {"access_key_id": access_key_id, "secret_access_key": secret_access_key}
        if endpoint is not None:
            config["endpoint"] = endpoint
        retry: RetryConfig = {"max_retries": 3, "retry_timeout": stall}

        def connect(whole_request: timedelta) -> S3Store:
            options: ClientConfig = {
                "allow_http": allow_http,
                "connect_timeout": stall / 2,
                "read_timeout": stall,
                "timeout": whole_request,
            }
            return S3Store(
                bucket,
                prefix=prefix or None,
                region=region,
                config=config,
                virtual_hosted_style_request=virtual_hosted,
                client_options=options,
                retry_config=retry,
            )

        self._store = connect(stall * 2)
        # A client may take hours to read one answer: only a service that stalls may end that, not the length.
        self._streams = connect(_DAY)

    async def put_file(self, key: str, path: Path, size: int) -> None:
        """Upload a file, a few parts in memory. A cancellation may leave the object, or an upload half done."""
        part = max(PART, -(-size // _MAX_PARTS))
        with _translated("upload"):
            await obstore.put_async(self._store, key, path, chunk_size=part, max_concurrency=_CONCURRENT_PARTS)

    async def size_of(self, key: str) -> int:
        """Return the size of an object; raises CorruptBlob when there is none."""
        with _translated("look-up"):
            return (await obstore.head_async(self._store, key))["size"]

    async def read(self, key: str, start: int, length: int, piece: int) -> AsyncIterator[memoryview]:
        """Yield a range of an object in pieces of at most `piece` bytes; raises CorruptBlob without one."""
        with _translated("read"):
            answer = await obstore.get_async(self._streams, key, options={"range": (start, start + length)})
            stream = answer.stream(min_chunk_size=piece)
        while True:
            with _translated("read"):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            view = memoryview(chunk)
            for offset in range(0, len(view), piece):
                yield view[offset : offset + piece]

    async def delete(self, key: str) -> None:
        """Delete an object; nothing happens when it is gone."""
        with contextlib.suppress(FileNotFoundError), _translated("deletion", missing=FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def iter_keys(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key below `prefix`, a page in memory at a time."""
        pages = obstore.list(self._store, prefix, chunk_size=_LIST_PAGE)
        while True:
            with _translated("listing"):
                page = await anext(pages, None)
            if page is None:
                return
            for found in page:
                yield found["path"]


@contextlib.contextmanager
def _translated(request: str, missing: type[Exception] = CorruptBlob) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise missing(f"the object store has no such object ({request})") from error
    except (BaseError, OSError, ValueError) as error:
        raise StorageUnavailable(f"the object store failed ({request}, {type(error).__name__})") from error
