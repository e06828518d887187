"""Tags on resources: pairs of key and value that people put on a repository (ECR §6). Not tags of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import InvalidResourceTag, TooManyResourceTags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_KEY = 128
MAX_VALUE = 256
_RESERVED = "aws:"


def checked_tags(pairs: Iterable[tuple[str, str]], limit: int) -> dict[str, str]:
    """Return the tags that a new resource gets, in the order given.

    Raises InvalidResourceTag for one that cannot be, or that is given twice, TooManyResourceTags beyond `limit`.
    """
    tags: dict[str, str] = {}
    for key, value in pairs:
        if key in tags or not _is_valid(key, value):
            raise InvalidResourceTag(texts.INVALID_RESOURCE_TAG)
        tags[key] = value
    return _bounded(tags, limit)


def with_tags(current: Mapping[str, str], added: Mapping[str, str], limit: int) -> dict[str, str]:
    """Return the tags of a resource after adding some; one whose key is there has its value replaced."""
    return _bounded({**current, **added}, limit)


def without_tags(current: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Return the tags of a resource after taking some away; keys that it does not have are ignored."""
    removed = frozenset(keys)
    return {key: value for key, value in current.items() if key not in removed}


def check_keys(keys: Iterable[str]) -> None:
    """Raise InvalidResourceTag for a key that no tag can have."""
    for key in keys:
        if not _is_valid(key, ""):
            raise InvalidResourceTag(texts.INVALID_RESOURCE_TAG)


def _is_valid(key: str, value: str) -> bool:
    return 0 < len(key) <= MAX_KEY and len(value) <= MAX_VALUE and not key.lower().startswith(_RESERVED)


def _bounded(tags: dict[str, str], limit: int) -> dict[str, str]:
    if len(tags) > limit:
        raise TooManyResourceTags(texts.too_many_resource_tags(limit))
    return tags
