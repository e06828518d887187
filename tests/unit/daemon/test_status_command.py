"""What `replicator status` says of conflicts, as people read it."""

from __future__ import annotations

import pytest

from replicator.daemon.status_command import conflict_text


@pytest.mark.parametrize(("winner", "said"), [("sha256:a", "is sha256:a"), (None, "was deleted")])
def test_a_conflict_that_a_deletion_won_says_so(winner: str | None, said: str) -> None:
    conflict = {"repository": "team/app", "tag": "1.0", "winner": winner, "loser": "sha256:b"}
    assert conflict_text(conflict) == f"team/app:1.0 {said}; also written elsewhere: sha256:b"
