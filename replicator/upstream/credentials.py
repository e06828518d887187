"""Credentials that change: found when they are needed, kept while they hold, found again when they are refused.

    get   kept and not due                              -> the kept ones
          due, others are being found, the old still hold -> the kept ones
          due, or none kept: look, one caller at a time
                found                                     -> the new ones
                failed                                    -> the kept ones while they hold, else UpstreamDenied

However many requests need them at once, they are looked for once; a search that failed, or that followed a refusal, is
not repeated for a few seconds, so that a wrong password is no storm of programs and requests.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from replicator.core.errors import ConfigurationError, CredentialsUnavailable, UpstreamDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.clock import Clock
    from replicator.upstream.endpoint import Credentials

IDENTITY_TOKEN_USER: Final = "<token>"  # noqa: S105 - no secret
"""Stands for a user name where the password is an identity token (Docker's credential helpers)."""

FIND_TIMEOUT: Final = 10.0
"""Seconds after which a search for credentials has failed."""
PAUSE: Final = 5.0
"""Seconds after a search that failed, or whose result was refused, before the next one."""


@dataclass(frozen=True, slots=True)
class Found:
    """Credentials, None for nobody; sought again after `good_for` seconds, of no use after `valid_for`."""

    credentials: Credentials | None
    good_for: float = math.inf
    valid_for: float = math.inf


class Search(Protocol):
    """Finds credentials in one place."""

    async def __call__(self) -> Found:
        """Look once. Raises UpstreamDenied, whose message names the place and no secret."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    credentials: Credentials | None
    due_at: float
    ends_at: float


class KeptCredentials:
    """A `CredentialSource` that keeps what `search` finds. Cancelling a `get` ends the search that it began."""

    def __init__(self, name: str, search: Search, clock: Clock) -> None:
        self._name = name
        self._search = search
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: _Kept | None = None
        self._failure: tuple[float, str] | None = None
        self._found_at = -math.inf

    async def get(self) -> Credentials | None:
        """Return the credentials that hold now; raises UpstreamDenied when there is no knowing them."""
        kept = self._kept
        if kept is not None and self._is_enough(kept, is_being_found=self._lock.locked()):
            return kept.credentials
        async with self._lock:
            if self._kept is None or self._clock.monotonic() >= self._kept.due_at:
                await self._find()
            assert self._kept is not None  # noqa: S101 - whatever finds nothing raises
            return self._kept.credentials

    def refused(self, credentials: Credentials) -> None:
        """Look for others at the next `get`, unless these were found just now: then nobody knows better."""
        kept = self._kept
        if kept is not None and kept.credentials == credentials:
            due_at = max(self._clock.monotonic(), self._found_at + PAUSE)
            self._kept = _Kept(credentials, min(kept.due_at, due_at), min(kept.ends_at, due_at))

    def _is_enough(self, kept: _Kept, *, is_being_found: bool) -> bool:
        now = self._clock.monotonic()
        return now < kept.due_at or (is_being_found and now < kept.ends_at)

    async def _find(self) -> None:
        """Replace what is kept; when that fails, keep it while it holds."""
        now = self._clock.monotonic()
        if self._failure is not None and now - self._failure[0] < PAUSE:
            raise CredentialsUnavailable(self._failure[1])
        try:
            found = await self._found()
        except UpstreamDenied as error:
            if self._kept is None or now >= self._kept.ends_at:
                self._failure = (self._clock.monotonic(), str(error))
                raise CredentialsUnavailable(str(error)) from error
            self._kept = _Kept(self._kept.credentials, now + PAUSE, self._kept.ends_at)
            return
        self._failure = None
        self._found_at = now
        self._kept = _Kept(found.credentials, now + max(found.good_for, PAUSE), now + max(found.valid_for, PAUSE))

    async def _found(self) -> Found:
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                return await self._search()
        except TimeoutError as error:
            raise UpstreamDenied(f"{self._name}: its credentials were not found within {FIND_TIMEOUT:.0f} s") from error


class ReadAgain:
    """A `Search` that reads the credentials from a mounted file, whose content may be replaced at any time."""

    def __init__(self, name: str, read: Callable[[], Credentials]) -> None:
        self._name = name
        self._read = read

    async def __call__(self) -> Found:
        """Read the file; it is read again when what it says is refused."""
        try:
            return Found(await asyncio.to_thread(self._read))
        except ConfigurationError as error:
            raise UpstreamDenied(f"{self._name}: its password cannot be read: {error}") from error
