"""A bounded mapping forgets what was used least recently, and nothing else."""

from __future__ import annotations

from replicator.core.bounded import BoundedMap


def filled(capacity: int, *keys: str) -> BoundedMap[str, int]:
    entries: BoundedMap[str, int] = BoundedMap(capacity)
    for number, key in enumerate(keys):
        entries.put(key, number)
    return entries


def test_keeps_as_many_as_it_may_and_drops_the_oldest() -> None:
    entries = filled(2, "a", "b", "c")
    assert (len(entries), list(entries)) == (2, ["b", "c"])
    assert entries.find("a") is None
    assert "a" not in entries


def test_what_was_found_or_put_again_is_not_the_oldest() -> None:
    entries = filled(3, "a", "b", "c")
    assert entries.find("a") == 0
    entries.put("b", 7)
    entries.put("d", 8)
    assert list(entries) == ["a", "b", "d"]
    assert entries.peek("b") == 7


def test_a_peek_is_no_use() -> None:
    entries = filled(2, "a", "b")
    assert entries.peek("a") == 0
    entries.put("c", 2)
    assert "a" not in entries
    assert entries.peek("a") is None


def test_an_entry_that_says_none_is_an_entry() -> None:
    entries: BoundedMap[str, int | None] = BoundedMap(2)
    entries.put("a", None)
    entries.put("b", 1)
    assert entries.find("a") is None
    entries.put("c", 2)
    assert list(entries) == ["a", "c"]


def test_forgets_what_is_popped() -> None:
    entries = filled(2, "a", "b")
    assert entries.pop("a") == 0
    assert entries.pop("a") is None
    entries.put("c", 2)
    assert list(entries) == ["b", "c"]
