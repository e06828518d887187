"""What of a new image must be here before it takes the place of another one."""

from __future__ import annotations

from replicator.core.digest import digest_of
from replicator.core.manifest import Descriptor, Manifest
from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from replicator.core.succession import needed_successors


def child(name: str, architecture: str | None, variant: str | None = None) -> Descriptor:
    platform = None if architecture is None else {"os": "linux", "architecture": architecture}
    if platform is not None and variant is not None:
        platform["variant"] = variant
    return Descriptor(OCI_MANIFEST, digest_of(name.encode()), 1, platform=platform)


def index(*children: Descriptor) -> Manifest:
    return Manifest(OCI_INDEX, manifests=children)


OLD = index(child("a1", "amd64"), child("b1", "arm64", "v8"), child("n1", None))
NEW = index(child("a2", "amd64"), child("b2", "arm64", "v8"), child("c2", "arm64"), child("n2", None))


def test_the_platforms_that_were_whole_are_needed() -> None:
    assert needed_successors(OLD, NEW, {digest_of(b"a1")}) == (digest_of(b"a2"),)
    assert needed_successors(OLD, NEW, {digest_of(b"b1"), digest_of(b"n1")}) == (digest_of(b"b2"), digest_of(b"n2"))


def test_a_platform_that_is_no_longer_there_needs_nothing() -> None:
    assert needed_successors(OLD, index(child("x", "s390x")), {digest_of(b"a1")}) == ()


def test_all_are_needed_where_there_was_no_index_and_each_once() -> None:
    image = Manifest(OCI_MANIFEST)
    twice = index(child("a", "amd64"), child("a", "amd64"), child("b", "arm64"))
    assert needed_successors(image, twice, {digest_of(b"image")}) == (digest_of(b"a"), digest_of(b"b"))
