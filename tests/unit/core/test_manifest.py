from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidDigest, InvalidInput, InvalidManifest, UnsupportedManifest
from replicator.core.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    agreed_media_type,
    check_states_type,
    parse_manifest,
)
from replicator.core.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    IMAGE_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    is_nondistributable,
    without_parameters,
)

CONFIG: dict[str, Any] = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"c"), "size": 1}
LAYER: dict[str, Any] = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(b"l"), "size": 2}
FOREIGN = {**LAYER, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": digest_of(b"f")}
CHILD: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"m"), "size": 3}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CHILD]}

SIZES: list[object] = [None, "1", 1.0, True, -1, 2**63, 1e400, []]


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def test_an_image() -> None:
    annotations = {"a": "b"}
    image = parse_manifest(
        encoded({**IMAGE, "layers": [LAYER, FOREIGN, LAYER], "subject": CHILD, "annotations": annotations})
    )
    assert image.media_type == OCI_MANIFEST
    assert not image.is_index
    assert image.config == Descriptor(CONFIG["mediaType"], CONFIG["digest"], 1)
    assert [layer.digest for layer in image.layers] == [LAYER["digest"], FOREIGN["digest"], LAYER["digest"]]
    assert image.blobs == (image.config, *image.layers)
    assert image.required_blobs == (CONFIG["digest"], LAYER["digest"])
    assert image.subject == Descriptor(OCI_MANIFEST, CHILD["digest"], 3)
    assert (image.children, image.manifests) == ((), ())
    assert (image.artifact_type, image.referrer_type) == (None, CONFIG["mediaType"])
    assert image.annotations == annotations


def test_an_index() -> None:
    platform = {"os": "linux", "architecture": "arm64"}
    children = [{**CHILD, "platform": platform, "artifactType": "x/y", "annotations": {"k": "v"}}, CHILD]
    index = parse_manifest(encoded({**INDEX, "manifests": children, "artifactType": "a/b", "subject": CHILD}))
    assert index.is_index
    assert index.children == (CHILD["digest"],)
    assert index.manifests[0] == Descriptor(OCI_MANIFEST, CHILD["digest"], 3, "x/y", {"k": "v"}, platform)
    assert (index.blobs, index.required_blobs, index.config) == ((), (), None)
    assert (index.artifact_type, index.referrer_type) == ("a/b", "a/b")
    assert index.subject is not None


def test_an_index_without_a_type_has_no_referrer_type() -> None:
    assert parse_manifest(encoded(INDEX)).referrer_type is None


def test_a_manifest_list_has_no_subject() -> None:
    index = parse_manifest(encoded({**INDEX, "mediaType": DOCKER_MANIFEST_LIST, "subject": CHILD}))
    assert index.subject is None


@pytest.mark.parametrize("empty", [None, []])
def test_no_layers_and_no_manifests(empty: object) -> None:
    assert parse_manifest(encoded({**IMAGE, "layers": empty})).layers == ()
    assert parse_manifest(encoded({**INDEX, "manifests": empty})).manifests == ()
    assert parse_manifest(encoded({key: value for key, value in IMAGE.items() if key != "layers"})).layers == ()


def test_what_is_empty_or_null_is_absent() -> None:
    image = parse_manifest(
        encoded(
            {**IMAGE, "artifactType": "", "subject": None, "annotations": None, "config": {**CONFIG, "platform": 1}}
        )
    )
    assert (image.artifact_type, image.subject, image.annotations) == (None, None, {})
    assert image.config is not None
    assert image.config.platform is None


@pytest.mark.parametrize(
    ("own", "stated", "expected"),
    [
        (OCI_MANIFEST, None, OCI_MANIFEST),
        (OCI_MANIFEST, "", OCI_MANIFEST),
        (OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, f"{OCI_MANIFEST.upper()} ; charset=utf-8", OCI_MANIFEST),
        (DOCKER_MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, None, DOCKER_MANIFEST),
        (None, OCI_MANIFEST, OCI_MANIFEST),
        ("", OCI_MANIFEST, OCI_MANIFEST),
        (None, None, OCI_MANIFEST),
        (None, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (OCI_MANIFEST, DOCKER_MANIFEST, InvalidManifest),
        (DOCKER_MANIFEST, OCI_MANIFEST, InvalidManifest),
        (OCI_MANIFEST, "application/json", InvalidManifest),
        (None, "application/json", UnsupportedManifest),
        (None, "text/html", UnsupportedManifest),
        ("application/vnd.example", None, UnsupportedManifest),
        (OCI_MANIFEST, OCI_INDEX, InvalidManifest),
        (None, OCI_INDEX, InvalidManifest),
        (OCI_INDEX, None, InvalidManifest),
        *((schema1, schema1, UnsupportedManifest) for schema1 in sorted(SCHEMA1_TYPES)),
    ],
)
def test_media_types(own: str | None, stated: str | None, expected: str | type[Exception]) -> None:
    document = {**IMAGE, "mediaType": own} if own is not None else {k: v for k, v in IMAGE.items() if k != "mediaType"}
    if isinstance(expected, str):
        assert parse_manifest(encoded(document), stated).media_type == expected
    else:
        with pytest.raises(expected):
            parse_manifest(encoded(document), stated)


def test_the_same_bytes_have_one_type() -> None:
    """Whatever Content-Type they are pushed with; else the first to push them would decide for everybody."""
    for document in (IMAGE, INDEX):
        content = encoded({key: value for key, value in document.items() if key != "mediaType"})
        accepted = set()
        for stated in (None, *MANIFEST_TYPES):
            try:
                media_type = parse_manifest(content, stated).media_type
                check_states_type(content, media_type)
                accepted.add(media_type)
            except InvalidManifest:
                continue
        assert len(accepted) == 1


@pytest.mark.parametrize(
    ("own", "stated", "agreed"),
    [
        (None, None, None),
        (None, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (OCI_INDEX, None, OCI_INDEX),
        (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_MANIFEST),
        (OCI_INDEX, DOCKER_MANIFEST_LIST, OCI_INDEX),
        (OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, "application/json", "application/json"),
    ],
)
def test_a_type_beside_a_document_gives_way_to_one_of_its_kind(
    own: str | None, stated: str | None, agreed: str | None
) -> None:
    assert agreed_media_type(own, stated) == agreed


@pytest.mark.parametrize("version", [1, None, 0, 3, "2", 2.0, True, [2], 10**100])
def test_other_schema_versions_are_refused(version: object) -> None:
    with pytest.raises(InvalidManifest) as raised:
        parse_manifest(encoded({**IMAGE, "schemaVersion": version}))
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "document",
    [
        # both an image and an index, or neither
        {**IMAGE, "manifests": []},
        {**IMAGE, "manifests": None},
        {**INDEX, "layers": []},
        {**INDEX, "config": CONFIG},
        {**INDEX, "fsLayers": []},
        {**IMAGE, "config": None},
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST},
        {"schemaVersion": 2, "mediaType": OCI_INDEX},
        # parts of the wrong kind
        {**IMAGE, "layers": {}},
        {**IMAGE, "layers": "x"},
        {**IMAGE, "layers": [None]},
        {**IMAGE, "layers": ["sha256:" + "0" * 64]},
        {**IMAGE, "config": []},
        {**IMAGE, "subject": "x"},
        {**IMAGE, "annotations": []},
        {**IMAGE, "annotations": {"a": 1}},
        {**IMAGE, "annotations": {"a": None}},
        {**IMAGE, "artifactType": 1},
        {**IMAGE, "artifactType": "a/b\x00"},
        {**IMAGE, "artifactType": "a/b\r\nX: y"},
        {**IMAGE, "config": {**CONFIG, "mediaType": "a/\x00"}},
        {**IMAGE, "mediaType": 1},
        {**IMAGE, "config": {**CONFIG, "mediaType": ""}},
        {**IMAGE, "config": {**CONFIG, "mediaType": None}},
        {**IMAGE, "config": {**CONFIG, "digest": None}},
        {**IMAGE, "config": {**CONFIG, "digest": 5}},
        *({**IMAGE, "config": {**CONFIG, "size": size}} for size in SIZES),
        {**IMAGE, "config": {**CONFIG, "annotations": {"a": []}}},
        {**IMAGE, "config": {**CONFIG, "artifactType": {}}},
        # spelled so that some programs read it and others do not
        {**IMAGE, "Layers": [FOREIGN]},
        {**IMAGE, "MANIFESTS": [CHILD]},
        {**IMAGE, "layer\u017f": [FOREIGN]},
        {**IMAGE, "config": {**CONFIG, "Digest": digest_of(b"other")}},
        {**INDEX, "manifests": [{**CHILD, "\u017fize": 1}]},
    ],
)
def test_malformed_and_ambiguous_documents_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(encoded(document).replace(b"Infinity", b"1e400"))


@pytest.mark.parametrize("where", ["config", "layers", "subject", "manifests"])
@pytest.mark.parametrize(
    "digest",
    ["sha256:../../x", "sha256:%2e%2e", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:zz", "md5:" + "0" * 32, ""],
)
def test_malformed_digests_are_refused_everywhere(where: str, digest: str) -> None:
    bad = {**LAYER, "digest": digest}
    document = INDEX if where == "manifests" else IMAGE
    with pytest.raises(InvalidDigest, match=where):
        parse_manifest(encoded({**document, where: [bad] if where in {"layers", "manifests"} else bad}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"{",
        b"{}}",
        b"{} {}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf" + encoded(IMAGE),
        encoded(IMAGE).replace(b'"size": 1', b'"size": NaN'),
        encoded(IMAGE).replace(b'"size": 1', b'"size": Infinity'),
        encoded(IMAGE).replace(b'"size": 1', b'"size": 1, "x": -Infinity'),
        encoded(IMAGE).replace(b'"size": 1', b'"size": ' + b"9" * 5000),
        encoded(IMAGE).replace(b'"size": 1', b'"size": 1, "size": 2'),
        encoded(IMAGE).replace(b'"layers"', b'"layers": [], "layers"'),
        encoded(IMAGE).replace(b'"layers"', rb'"\u006cayers": [], "layers"'),
        encoded(IMAGE).replace(b"}]}", b"}], }"),
        encoded(IMAGE).replace(b"}]}", b'}], "x": {"a": 1, "a": 1}}'),
        encoded(IMAGE).replace(b"}]}", b'}], "annotations": {"a": "\\ud800"}}'),
        encoded(IMAGE).replace(b"}]}", b'}], "annotations": {"\\udfff": "a"}}'),
        encoded(IMAGE).replace(b"}]}", b'}], "artifactType": "\\uD800x"}'),
        encoded(IMAGE).replace(b"}]}", b'}], "x": [[["\\ud8FF"]]}'),
        b"[" * 10**6,
        b'{"a":' * 10**5,
        encoded(IMAGE).replace(b"}]}", b'}], "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    ],
)
def test_what_is_no_strict_json_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidManifest) as raised:
        parse_manifest(content)
    assert len(str(raised.value)) < 300


def test_escapes_that_are_text_are_text() -> None:
    image = parse_manifest(encoded({**IMAGE, "annotations": {"snake": "\N{SNAKE}"}}))
    assert image.annotations == {"snake": "\N{SNAKE}"}


def bomb(part: bytes) -> bytes:
    head = encoded({**IMAGE, "x": 0})[:-2]
    return head + b"[" + part * ((MAX_MANIFEST_BYTES - len(head) - 10) // len(part)) + b"0]}"


@pytest.mark.parametrize("part", [b"[],", b"{},", b"0,", b'{"":{}},'], ids=repr)
def test_no_document_holds_the_loop_for_long(part: bytes) -> None:
    content = bomb(part)
    started = time.process_time()
    with pytest.raises(InvalidManifest, match="at most"):
        parse_manifest(content)
    assert time.process_time() - started < 0.2


def test_a_large_document_of_few_parts_is_fine() -> None:
    annotations = {f"key-{number}": "A" * 10_000 for number in range(800)}
    assert len(parse_manifest(encoded({**IMAGE, "annotations": annotations})).annotations) == 800


def test_an_index_may_list_thousands() -> None:
    children = [{**CHILD, "digest": digest_of(b"%d" % number)} for number in range(20_000)]
    assert len(parse_manifest(encoded({**INDEX, "manifests": children})).children) == 20_000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*sorted(MANIFEST_TYPES), LAYER["digest"]]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text() | st.sampled_from(["mediaType", "digest", "size", "annotations"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType", "Layers"]
)


@given(st.dictionaries(keys, values), st.sampled_from([IMAGE, INDEX, {}]), st.none() | st.text())
def test_a_mutilated_document_raises_nothing_else(
    changes: dict[str, Any], document: dict[str, Any], content_type: str | None
) -> None:
    content = json.dumps({**document, **changes}).encode()
    try:
        manifest = parse_manifest(content, content_type)
    except InvalidInput:
        return
    assert manifest.media_type in MANIFEST_TYPES
    assert manifest.is_index == ("manifests" in {**document, **changes})


@given(st.binary())
def test_any_bytes_raise_nothing_else(content: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(content)


def test_kinds_of_media_types() -> None:
    assert MANIFEST_TYPES == IMAGE_TYPES | INDEX_TYPES
    assert not IMAGE_TYPES & INDEX_TYPES
    assert is_nondistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    assert is_nondistributable("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd")
    assert not is_nondistributable("application/vnd.oci.image.layer.v1.tar")
    assert without_parameters(" Application/JSON ;charset=utf-8") == "application/json"
