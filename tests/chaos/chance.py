"""Chance that can be repeated: what it says depends on the seed and on what is asked, not on what was asked before."""

from __future__ import annotations

from random import Random


def chance(seed: int | str, *asked: object) -> Random:
    """Return the numbers for one decision."""
    return Random(f"{seed} {' '.join(map(str, asked))}")  # noqa: S311 - repeatable on purpose
