"""Whether somebody is waiting for what is asked of an upstream, or whether it can wait itself.

The answer is inherited by every task that the caller starts, detached ones too: what a background job sets off is
background work. Interactive is what nobody said anything about.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_background: ContextVar[bool] = ContextVar("replicator_upstream_background", default=False)


@contextmanager
def background() -> Iterator[None]:
    """Let interactive work go first in everything that the block asks of upstreams, or sets off."""
    token = _background.set(True)
    try:
        yield
    finally:
        _background.reset(token)


def is_background() -> bool:
    """Tell whether nobody waits for what is asked here."""
    return _background.get()
