"""Waiting for what another process does: a question is asked until it is answered, or a deadline fails the test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PAUSE = 0.02


def eventually(question: Callable[[], T], what: str, *, within: float = 20.0) -> T:
    """Return the first true answer to `question`; fail the test when there is none in time.

    `what` completes the sentence "waited in vain for …".
    """
    deadline = time.monotonic() + within
    while not (answer := question()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {within:g} s in vain for {what}; the last answer was {answer!r}")
        time.sleep(_PAUSE)  # another process is at work: there is nothing to wait on
    return answer
