"""The list of referrers that a registry without the referrers API needs."""

from __future__ import annotations

import json

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import UpstreamRefused
from replicator.core.manifest import parse_manifest
from replicator.storage.metadata.images import StoredManifest
from replicator.transfer.referrers_tag import referrers_tag, with_referrer
from tests.support.images import BuiltImage, build_image, build_index

IMAGE = build_image()
ONE, OTHER = (
    build_image([b"%d" % number], artifact_type="application/vnd.test", subject=IMAGE, annotations={"a": "b"})
    for number in range(2)
)


def added(listed: bytes | None, referrer: BuiltImage) -> bytes | None:
    stored = StoredManifest(referrer.digest, referrer.media_type, referrer.manifest)
    return with_referrer(listed, stored, parse_manifest(referrer.manifest, referrer.media_type))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_tag_is_the_digest_as_the_specification_shortens_it(algorithm: str) -> None:
    digest = digest_of(b"x", algorithm)
    assert referrers_tag(digest) == f"{algorithm}-{digest.partition(':')[2][:64]}"


def test_every_referrer_is_listed_once() -> None:
    first = added(None, ONE)
    second = added(first, OTHER)
    assert second is not None
    assert added(second, ONE) is None
    assert list(parse_manifest(second).children) == [ONE.digest, OTHER.digest]
    entry = json.loads(second)["manifests"][0]
    assert (entry["artifactType"], entry["annotations"]) == ("application/vnd.test", {"a": "b"})


def test_what_the_index_says_besides_stays() -> None:
    index = build_index([ONE], annotations={"kept": "yes"})
    found = added(index.manifest, OTHER)
    assert found is not None
    assert json.loads(found)["annotations"] == {"kept": "yes"}


@pytest.mark.parametrize("content", [IMAGE.manifest, b"<html>", b"[]"])
def test_something_else_under_the_tag_is_left_alone(content: bytes) -> None:
    with pytest.raises(UpstreamRefused):
        added(content, ONE)
