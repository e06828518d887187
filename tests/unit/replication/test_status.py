"""One status for each destination, whatever tags an image was sent under."""

from __future__ import annotations

import pytest

from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName, Tag
from replicator.core.replication import ReplicationState
from replicator.replication.status import DestinationStatus, summarise
from replicator.storage.metadata.replication_status import ReplicationStatus

COMPLETE, FAILED, IN_PROGRESS = ReplicationState.COMPLETE, ReplicationState.FAILED, ReplicationState.IN_PROGRESS
DENIED, SUPERSEDED = "AccessDenied", "Superseded"
Row = tuple[str | None, ReplicationState, str | None]


def status(row: Row, destination: str = "eu") -> ReplicationStatus:
    tag, state, code = row
    named = None if tag is None else Tag(tag)
    return ReplicationStatus(
        RepositoryName("team/app"), digest_of(b"image"), named, destination, "rule", state, code, 1.0, None, 0
    )


@pytest.mark.parametrize(
    ("rows", "tag", "expected"),
    [
        ([("a", COMPLETE, None), ("b", IN_PROGRESS, None)], None, (IN_PROGRESS, None)),
        ([("a", COMPLETE, None), ("b", FAILED, DENIED)], None, (FAILED, DENIED)),
        ([("a", FAILED, DENIED), ("b", IN_PROGRESS, None)], None, (IN_PROGRESS, None)),
        ([(None, COMPLETE, None), ("a", COMPLETE, None)], None, (COMPLETE, None)),
        ([("a", COMPLETE, None), ("b", FAILED, SUPERSEDED)], None, (COMPLETE, None)),
        ([("a", FAILED, SUPERSEDED)], None, (FAILED, SUPERSEDED)),
        ([("a", COMPLETE, None), ("b", IN_PROGRESS, None)], "a", (COMPLETE, None)),
        ([("a", COMPLETE, None), ("b", FAILED, DENIED)], "b", (FAILED, DENIED)),
        ([("a", COMPLETE, None), ("b", FAILED, SUPERSEDED)], "b", (FAILED, SUPERSEDED)),
        ([("a", COMPLETE, None)], "set-since", (COMPLETE, None)),
    ],
)
def test_the_status_of_several_tags(
    rows: list[Row], tag: str | None, expected: tuple[ReplicationState, str | None]
) -> None:
    found = summarise([status(row) for row in rows], None if tag is None else Tag(tag))
    assert found == [DestinationStatus("eu", *expected)]


def test_every_destination_has_its_own_status() -> None:
    rows = [status(("a", COMPLETE, None), "us"), status(("a", FAILED, DENIED), "eu")]
    assert summarise(rows, None) == [DestinationStatus("eu", FAILED, DENIED), DestinationStatus("us", COMPLETE)]


def test_what_was_never_replicated_has_no_status() -> None:
    assert summarise([], None) == []
