"""Wildcards of policies: `*` is any characters, `?` is one; everything else is itself.

Whoever writes a policy decides on the patterns, and whoever asks on the text. So no pattern makes matching go back:
what it costs grows with the length of the text, and by no more than a machine word's share with that of the pattern.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from replicator.core.mutability import matches_wildcard

_REMEMBERED = 1024


def matches_pattern(pattern: str, text: str) -> bool:
    """Match the whole of `text`, case-sensitively."""
    if pattern == "*":
        return True
    if "?" not in pattern:
        return matches_wildcard(pattern, text)
    return _automaton(pattern).matches(text)


class _Automaton(NamedTuple):
    """All places of a pattern where a match may stand, as bits of one number: bit n is before its nth character."""

    characters: dict[str, int]
    any_character: int
    stars: int
    end: int

    def matches(self, text: str) -> bool:
        places = 1
        for character in text:
            moving = self.characters.get(character, 0) | self.any_character
            places = ((places & moving) << 1) | (places & self.stars)
            if not places:
                return False
        return bool(places & self.end)


@lru_cache(_REMEMBERED)
def _automaton(pattern: str) -> _Automaton:
    characters: dict[str, int] = {}
    any_character = stars = 0
    place = 1
    for character in pattern:
        if character == "*":
            stars |= place
            continue
        if character == "?":
            any_character |= place
        else:
            characters[character] = characters.get(character, 0) | place
        place <<= 1
    return _Automaton(characters, any_character, stars, place)
