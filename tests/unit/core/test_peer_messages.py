"""What nodes say to each other survives its JSON form, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.delivery import ImageOutcome
from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput
from replicator.core.names import RepositoryName, Tag
from replicator.core.peer_messages import (
    MAX_ITEMS,
    Deletion,
    Delivery,
    HeldImage,
    LackedBlob,
    Lacks,
    Offer,
    OfferedBlob,
    OfferedTag,
    Receipt,
    RepositoryHash,
    SentManifest,
)
from replicator.core.revisions import NEVER, MergeOutcome, Revision, TagRegister

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = "1" * 12 + "/eu"
digests = st.binary(max_size=3).map(digest_of)
many_digests = st.lists(digests, max_size=3).map(tuple)
names = st.sampled_from([RepositoryName("a"), RepositoryName("a/b-c")])
revisions = st.just(NEVER) | st.builds(Revision, st.integers(0, 2**40), st.integers(0, 2**50), st.just(NODE))
registers = st.builds(
    TagRegister, st.none() | digests, revisions, st.dictionaries(st.just(NODE), st.integers(0, 2**50))
)
tag_names = st.sampled_from([Tag("latest"), Tag("v1.0")])
tags = st.none() | st.builds(OfferedTag, tag_names, registers)
sizes = st.integers(0, 2**62)
image_outcomes = st.sampled_from(ImageOutcome)

MESSAGES: list[Any] = [
    st.builds(
        Offer,
        names,
        digests,
        revisions,
        many_digests,
        st.lists(st.builds(OfferedBlob, digests, sizes), max_size=3).map(tuple),
        tags,
    ),
    st.builds(
        Lacks,
        many_digests,
        st.lists(st.builds(LackedBlob, digests, sizes), max_size=3).map(tuple),
        st.none() | image_outcomes,
        st.none() | registers,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        Delivery,
        names,
        st.lists(st.builds(SentManifest, digests, st.text(max_size=5), st.binary(max_size=20)), max_size=3).map(tuple),
        revisions,
        st.none() | digests,
        tags,
        many_digests,
        many_digests,
    ),
    st.builds(
        Receipt,
        image_outcomes,
        st.none() | st.sampled_from(MergeOutcome),
        st.none() | registers,
        many_digests,
        many_digests,
    ),
    st.builds(Deletion, names, digests, revisions, tags),
    st.builds(RepositoryHash, names, st.text(max_size=64)),
    st.builds(HeldImage, digests, revisions, st.none() | tag_names, st.booleans(), st.booleans()),
    st.builds(HeldImage, st.none(), revisions, tag_names, st.booleans(), st.booleans()),
]


@given(st.one_of(*MESSAGES))
def test_a_message_survives_its_json_form(message: Any) -> None:
    assert type(message).from_json(json.loads(json.dumps(message.to_json()))) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
READERS: list[Callable[[object], object]] = [
    kind.from_json for kind in (Offer, Lacks, Delivery, Receipt, Deletion, RepositoryHash, HeldImage)
]


@pytest.mark.parametrize("read", READERS)
@given(json_values)
def test_other_json_is_refused(read: Callable[[object], object], value: object) -> None:
    with pytest.raises(InvalidInput):
        read(value)


@given(st.one_of(*MESSAGES), st.data())
def test_a_message_with_one_member_replaced_is_refused_or_read_as_that(message: Any, data: st.DataObject) -> None:
    value = json.loads(json.dumps(message.to_json()))
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(json_values)
    try:
        read = type(message).from_json(value)
    except InvalidInput:
        return
    assert type(message).from_json(json.loads(json.dumps(read.to_json()))) == read


def test_too_many_items_are_refused() -> None:
    value = json.loads(json.dumps(Lacks((), (), None).to_json()))
    value["manifests"] = [digest_of(b"a")] * MAX_ITEMS
    assert len(Lacks.from_json(value).manifests) == MAX_ITEMS
    value["manifests"].append(digest_of(b"a"))
    with pytest.raises(InvalidInput, match="at most"):
        Lacks.from_json(value)


def test_a_tag_without_a_register_and_content_that_is_no_base64_are_refused() -> None:
    deletion = json.loads(json.dumps(Deletion(RepositoryName("a"), digest_of(b"a"), NEVER).to_json()))
    with pytest.raises(InvalidInput, match="register"):
        Deletion.from_json({**deletion, "tag": {"name": "latest", "register": None}})
    delivery = Delivery(RepositoryName("a"), (SentManifest(digest_of(b"a"), "t", b"a"),), NEVER)
    value = json.loads(json.dumps(delivery.to_json()))
    value["manifests"][0]["content"] = "YQ==!"
    with pytest.raises(InvalidInput, match="Base64"):
        Delivery.from_json(value)


def test_a_line_s_cursor_sorts_images_before_tags() -> None:
    image = HeldImage(digest_of(b"a"), NEVER)
    tag = HeldImage(None, NEVER, Tag("a"), is_present=False)
    assert (image.cursor, tag.cursor) == (f"@{image.digest}", ":a")
