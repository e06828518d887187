"""The Via of what we ask for on somebody's behalf, so that a request which comes round in a circle is recognised.

The edge notes the Via entries of the request that it answers; every request to an upstream that is set off by it, also
by a detached task, carries them on with our own entry behind them (RFC 9110 §7.6.3).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from replicator.upstream.errors import UpstreamLoop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_incoming: ContextVar[tuple[str, ...]] = ContextVar("replicator_incoming_via", default=())


@contextmanager
def on_behalf_of(entries: tuple[str, ...]) -> Iterator[None]:
    """Carry on the Via `entries` of a request in everything that the block asks of upstreams, or sets off."""
    token = _incoming.set(entries)
    try:
        yield
    finally:
        _incoming.reset(token)


def incoming_via() -> tuple[str, ...]:
    """Return the Via entries of the request that this is done for, the oldest first."""
    return _incoming.get()


def is_loop_of_requester(error: BaseException) -> bool:
    """Tell whether a failure is a circle that was closed by whom a client says its request has passed.

    It is that client's alone: nobody else's answer, and no news of the upstream.
    """
    return isinstance(error, UpstreamLoop) and bool(incoming_via())


def via_header(own: str | None) -> Mapping[str, str]:
    """Return the header that says who this request went through, ending with our `own` entry; none without one."""
    return {} if own is None else {"Via": ", ".join((*_incoming.get(), own))}
