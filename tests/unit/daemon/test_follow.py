from __future__ import annotations

from typing import Any

import pytest

from replicator.daemon.follow import backfill_path, summary


def backfill(state: str, failure: str | None = None, **progress: Any) -> dict[str, Any]:
    counts = {"total": 3, "in_progress": 0, "complete": 0, "failed": 0, "stopped": 0, "failure_codes": [], "bytes": 0}
    return {"state": state, "failure": failure, "progress": {**counts, **progress} if progress else None}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (backfill("PREPARING"), "PREPARING"),
        (backfill("FAILED", "DestinationNotFound"), "FAILED (DestinationNotFound)"),
        (backfill("IN_PROGRESS", complete=1, bytes=2048), "IN_PROGRESS: 1 of 3 images, 2.0 KiB"),
        (backfill("STOPPED", complete=1, stopped=2), "STOPPED: 1 of 3 images, 2 stopped, 0 B"),
        (
            backfill("FAILED", "TooManyFailures", failed=3, failure_codes=["AccessDenied"]),
            "FAILED (TooManyFailures): 0 of 3 images, 3 failed, 0 B, AccessDenied",
        ),
    ],
)
def test_a_backfill_in_one_line(found: dict[str, Any], text: str) -> None:
    assert summary(found) == text


@pytest.mark.parametrize("text", ["../status", "a/b", "a?b=c", "a#b"])
def test_an_id_cannot_name_another_page(text: str) -> None:
    assert backfill_path(text).count("/") == 1
    assert not set(backfill_path(text)) & set("?#")
