"""What clients push: a handful of images, indexes and referrers that share blobs and children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from replicator.core.names import Tag

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Content:
    """A manifest: what it needs to be whole."""

    name: str
    digest: Digest
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()
    is_referrer: bool = False


def _digest(name: str) -> Digest:
    return digest_of(name.encode())


def _image(name: str, *blobs: str) -> Content:
    return Content(name, _digest(name), tuple(_digest(blob) for blob in blobs))


def _index(name: str, *children: str) -> Content:
    return Content(name, _digest(name), (), tuple(_digest(child) for child in children))


def _referrer(name: str, blob: str) -> Content:
    return Content(name, _digest(name), (_digest(blob),), (), is_referrer=True)


IMAGES = (_image("m0", "base"), _image("m1", "base", "b1"), _image("m2", "b2"), _image("m3", "b3"))
INDEXES = (_index("i0", "m0", "m1"), _index("i1", "m1", "m2"))
REFERRERS = (_referrer("r0", "s0"), _referrer("r1", "s1"))
ALL = (*IMAGES, *INDEXES, *REFERRERS)
CONTENTS: Mapping[Digest, Content] = {content.digest: content for content in ALL}
PARTS: Mapping[Digest, tuple[Digest, ...]] = {one.digest: (*one.children, one.digest) for one in ALL}
"""An image with its children before it, as they are sent."""
BLOBS: Mapping[Digest, tuple[Digest, ...]] = {
    digest: tuple(dict.fromkeys(blob for part in parts for blob in CONTENTS[part].blobs))
    for digest, parts in PARTS.items()
}
PARENTS: Mapping[Digest, tuple[Digest, ...]] = {
    one.digest: tuple(index.digest for index in INDEXES if one.digest in index.children) for one in ALL
}
TAGS = (Tag("v1"), Tag("v2"), Tag("dev"))
NAMES: Mapping[str, str] = {
    **{one.digest: one.name for one in ALL},
    **{_digest(name): name for name in ("base", "b1", "b2", "b3", "s0", "s1")},
}


def shown(value: object) -> str:
    """Return a text in which digests are short."""
    text = str(value)
    for digest, name in NAMES.items():
        text = text.replace(digest, name)
    return text
