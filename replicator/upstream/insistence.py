"""Asking an upstream although it is paused or left alone, because an operator wants to know how it is now.

A pause is honoured to the full, and an upstream may ask for one of years. Whoever insists sends what the pause forbids,
and a good answer ends it. Inherited by every task that the caller starts, so it is for single questions only.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_insisting: ContextVar[bool] = ContextVar("replicator_upstream_insisting", default=False)


@contextmanager
def insisting() -> Iterator[None]:
    """Have upstreams asked at once in the block, whatever they wanted before."""
    token = _insisting.set(True)
    try:
        yield
    finally:
        _insisting.reset(token)


def is_insisting() -> bool:
    """Tell whether an upstream is to be asked whatever it wanted before."""
    return _insisting.get()
