from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from replicator.core import errors
from replicator.core.errors import ReplicatorError

if TYPE_CHECKING:
    from collections.abc import Iterator


def leaves(kind: type[ReplicatorError] = ReplicatorError) -> Iterator[type[ReplicatorError]]:
    for child in kind.__subclasses__():
        yield child
        yield from leaves(child)


ALL = [kind for kind in leaves() if kind.__module__ == errors.__name__]


def test_every_error_is_found() -> None:
    declared = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ReplicatorError)}
    assert declared == {ReplicatorError, *ALL}


@pytest.mark.parametrize("kind", [ReplicatorError, *ALL], ids=lambda kind: kind.__name__)
def test_an_error_says_what_is_wrong(kind: type[ReplicatorError]) -> None:
    message = str(kind())
    assert message
    assert message[0].islower()
    assert not message.endswith(".")
    assert str(kind("something else")) == "something else"
    assert kind().retry_after is None


def test_an_error_may_say_when_to_come_back() -> None:
    assert errors.Throttled("slowly", retry_after=3.0).retry_after == 3.0


def test_only_what_may_pass_is_worth_a_retry() -> None:
    assert {kind for kind in ALL if kind.retryable} == {
        errors.Throttled,
        errors.UpstreamThrottled,
        errors.UpstreamUnavailable,
        errors.UpstreamTimeout,
        errors.UpstreamContent,
        errors.StorageError,
        errors.StorageFull,
        errors.StorageUnavailable,
        errors.ShuttingDown,
    }
