"""Every kind of image, index and artifact, from the push to the delete: bytes, headers, tag list, referrers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.digest import Digest, algorithm_of, digest_of
from replicator.core.media_types import DOCKER_MANIFEST, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from tests.support.images import Built, BuiltImage, build_image, build_index, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conformance.scene import Registries
    from tests.support.wire_client import Answer, WireClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
FIRST, SECOND = "application/vnd.example.first.v1", "application/vnd.example.second.v1"
ANNOTATIONS = {"org.opencontainers.conformance": "hello", "org.example.emoji": "\N{SNAKE} ü"}


@dataclass(frozen=True)
class Document:
    """A manifest to push: its bytes and the digest it is pushed under."""

    content: bytes
    digest: Digest

    @property
    def media_type(self) -> str:
        """The type it states itself."""
        return str(json.loads(self.content)["mediaType"])


@dataclass
class DataSet:
    """What is pushed, in order, and what a subject's referrers are then."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    tags: dict[str, Digest] = field(default_factory=dict)
    referrers: dict[Digest, list[dict[str, Any]]] = field(default_factory=dict)
    tags_as_parameters: bool = False

    def add(self, built: Built, *tags: str) -> DataSet:
        """Add what a builder built, with all it refers to."""
        for node in walk(built):
            if isinstance(node, BuiltImage):
                self.blobs.update(node.blobs)
            self.documents.append(Document(node.manifest, node.digest))
        self.tags.update(dict.fromkeys(tags, built.digest))
        return self

    def add_document(self, document: Mapping[str, Any], *tags: str, algorithm: str = "sha256") -> Document:
        """Add a manifest as it is."""
        content = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        self.documents.append(Document(content, digest_of(content, algorithm)))
        self.tags.update(dict.fromkeys(tags, self.documents[-1].digest))
        return self.documents[-1]

    def add_blob(self, content: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
        """Add a blob and return its descriptor."""
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def expect_referrer(self, subject: Digest, document: Document, artifact_type: str | None) -> None:
        """Expect the last document among the referrers of `subject`."""
        annotations = json.loads(document.content).get("annotations")
        descriptor = {"mediaType": document.media_type, "digest": document.digest, "size": len(document.content)}
        if artifact_type:
            descriptor["artifactType"] = artifact_type
        if annotations:
            descriptor["annotations"] = annotations
        self.referrers.setdefault(subject, []).append(descriptor)


def image() -> DataSet:
    return DataSet().add(build_image([b"one", b"two"]), "image")


def large_manifest() -> DataSet:
    annotations = {f"large-{number}": "A" * 10_000 for number in range(390)}
    return DataSet().add(build_image([b"one"], annotations=annotations), "large")


def _platforms() -> list[BuiltImage]:
    return [build_image([name.encode()], platform=("linux", name)) for name in ("amd64", "arm64")]


def index() -> DataSet:
    return DataSet().add(build_index(_platforms()), "index")


def nested_index() -> DataSet:
    inner = [build_index(_platforms()), build_index([build_image([b"other"], platform=("linux", "riscv64"))])]
    return DataSet().add(build_index(inner), "index-of-indexes")


def empty_index() -> DataSet:
    return DataSet().add(build_index([]), "empty")


def artifact() -> DataSet:
    return DataSet().add(build_image([b"artifact"], artifact_type=FIRST), "artifact")


def artifact_index() -> DataSet:
    data = DataSet().add(build_image([b"artifact"], artifact_type=FIRST))
    child = data.documents[0]
    listed = {"mediaType": OCI_MANIFEST, "digest": child.digest, "size": len(child.content), "artifactType": FIRST}
    data.add_document(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": FIRST, "manifests": [listed]}, "artifacts"
    )
    return data


def artifact_without_layers() -> DataSet:
    data = DataSet()
    empty = data.add_blob(b"{}", OCI_EMPTY)
    data.add_document(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": FIRST, "config": empty, "layers": [empty]},
        "artifact",
    )
    return data


def artifacts_with_subject() -> DataSet:
    subject = build_image([b"subject"])
    data = DataSet().add(subject, "subject")
    descriptor = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": len(subject.manifest)}
    data.add(build_image([b"attached image"], subject=subject))
    data.expect_referrer(subject.digest, data.documents[-1], CONFIG)
    for kind, tag in ((FIRST, "attached-1"), (SECOND, "attached-2")):
        layer, empty = data.add_blob(tag.encode(), kind), data.add_blob(b"{}", OCI_EMPTY)
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "config": empty}
        document |= {"layers": [layer], "subject": descriptor, "annotations": ANNOTATIONS}
        data.expect_referrer(subject.digest, data.add_document(document, tag), kind)
    return data


def index_with_subject() -> DataSet:
    subject = build_index(_platforms())
    data = DataSet().add(subject, "index")
    descriptor = {"mediaType": OCI_INDEX, "digest": subject.digest, "size": len(subject.manifest)}
    plain = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": descriptor}
    data.expect_referrer(subject.digest, data.add_document(plain), None)
    typed = {**plain, "artifactType": FIRST, "annotations": ANNOTATIONS}
    data.expect_referrer(subject.digest, data.add_document(typed, "attached"), FIRST)
    return data


def missing_subject() -> DataSet:
    absent = digest_of(b"missing content")
    data = DataSet()
    empty = data.add_blob(b"{}", OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": FIRST,
        "config": empty,
        "layers": [empty],
    }
    document |= {"subject": {"mediaType": OCI_MANIFEST, "digest": absent, "size": 123}, "annotations": ANNOTATIONS}
    data.expect_referrer(absent, data.add_document(document, "attached"), FIRST)
    return data


def data_field() -> DataSet:
    data = DataSet()
    config, layer = data.add_blob(b"{}", CONFIG, data="e30="), data.add_blob(b"inline", data="aW5saW5l")
    data.add_document({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}, "data")
    return data


def non_distributable_layers() -> DataSet:
    data = DataSet()
    urls = ["https://store.example.com/layer"]
    foreign = {"mediaType": FOREIGN, "digest": digest_of(b"not here"), "size": 12345, "urls": urls}
    layers = [foreign, data.add_blob(b"here")]
    config = data.add_blob(b"{}", CONFIG)
    data.add_document({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}, "foreign")
    return data


def custom_fields() -> DataSet:
    data = DataSet()
    config = data.add_blob(b'{"org.example.x": 1}', CONFIG, custom="a")
    layer = data.add_blob(b"custom", custom=[1, {"deep": None}])
    child = data.add_document(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], "custom": {"b": 1.5}}
    )
    listed = {"mediaType": OCI_MANIFEST, "digest": child.digest, "size": len(child.content), "custom": True}
    data.add_document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed], "custom": "c"}, "custom")
    return data


def no_layers() -> DataSet:
    data = DataSet()
    config = data.add_blob(b"{}", CONFIG)
    data.add_document({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}, "no-layers")
    return data


def sparse_image() -> DataSet:
    data = DataSet().add(build_image([b"one", b"two"]), "sparse-image")
    del data.blobs[digest_of(b"one")]
    return data


def sparse_index() -> DataSet:
    data = DataSet().add(build_image([b"present"], platform=("linux", "amd64")))
    present = data.documents[0]
    listed = [
        {"mediaType": OCI_MANIFEST, "digest": present.digest, "size": len(present.content)},
        {"mediaType": OCI_MANIFEST, "digest": digest_of(b"absent platform"), "size": 1024},
    ]
    data.add_document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}, "sparse-index")
    return data


def sha512() -> DataSet:
    images = [build_image([name.encode()], algorithm="sha512") for name in ("one", "two")]
    return DataSet().add(build_index(images, algorithm="sha512"))


def tag_parameters() -> DataSet:
    return _tag_parameters("sha256")


def tag_parameters_sha512() -> DataSet:
    return _tag_parameters("sha512")


def _tag_parameters(algorithm: str) -> DataSet:
    images = [build_image([name.encode()], algorithm=algorithm) for name in ("one", "two")]
    data = DataSet(tags_as_parameters=True)
    data.add(build_index(images, algorithm=algorithm), *(f"{algorithm}-{number}" for number in range(12)))
    data.tags |= {f"{algorithm}-child-{number}": built.digest for number, built in enumerate(images)}
    return data


def docker_image() -> DataSet:
    return DataSet().add(build_image([b"one", b"two"], media="docker"), "docker")


def docker_manifest_list() -> DataSet:
    images = [build_image([name.encode()], media="docker", platform=("linux", name)) for name in ("amd64", "arm64")]
    return DataSet().add(build_index(images, media="docker"), "docker-list")


KINDS: list[Callable[[], DataSet]] = [
    *(image, large_manifest, index, nested_index, empty_index, artifact, artifact_index, artifact_without_layers),
    *(artifacts_with_subject, index_with_subject, missing_subject, data_field, non_distributable_layers),
    *(custom_fields, no_layers, sha512, tag_parameters, tag_parameters_sha512, docker_image, docker_manifest_list),
]
SPARSE: list[Callable[[], DataSet]] = [sparse_image, sparse_index]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_push_to_delete(kind: Callable[[], DataSet], registries: Registries, repository: str) -> None:
    async with registries.strict.client() as client:
        await _push_to_delete(client, repository, kind())


@pytest.mark.parametrize("kind", SPARSE, ids=lambda kind: kind.__name__)
async def test_sparse_where_allowed(kind: Callable[[], DataSet], client: WireClient, repository: str) -> None:
    await _push_to_delete(client, repository, kind())


@pytest.mark.parametrize("kind", SPARSE, ids=lambda kind: kind.__name__)
async def test_sparse_is_refused_by_default(
    kind: Callable[[], DataSet], registries: Registries, repository: str
) -> None:
    data = kind()
    async with registries.strict.client() as client:
        for content in data.blobs.values():
            await client.push_blob(repository, content)
        *whole, lacking = data.documents
        for document in whole:
            assert (await client.push_manifest(repository, document.digest, document.content)).status == 201
        answer = await client.push_manifest(repository, "lacking", lacking.content)
        assert answer.status == 404
        assert answer.codes == ["MANIFEST_BLOB_UNKNOWN"]
        absent = digest_of(b"one") if kind is sparse_image else digest_of(b"absent platform")
        assert [error["detail"] for error in answer.json()["errors"]] == [{"digest": absent}]
        assert (await client.head(f"/v2/{repository}/manifests/lacking")).status == 404
        assert (await client.head(f"/v2/{repository}/manifests/{lacking.digest}")).status == 404


async def _push_to_delete(client: WireClient, repository: str, data: DataSet) -> None:
    await _push(client, repository, data)
    await _check_tag_list(client, repository, data)
    await _check_manifests(client, repository, data)
    await _check_referrers(client, repository, data)
    await _delete(client, repository, data)


async def _push(client: WireClient, repository: str, data: DataSet) -> None:
    for digest, content in data.blobs.items():
        await client.push_blob(repository, content, algorithm_of(digest))
    for document in data.documents:
        tags = [tag for tag, digest in data.tags.items() if digest == document.digest]
        query = "?" + "&".join(f"tag={tag}" for tag in tags) if data.tags_as_parameters else ""
        answer = await client.send(
            "PUT",
            f"/v2/{repository}/manifests/{document.digest}{query}",
            chunks=[document.content],
            headers={"Content-Type": document.media_type},
        )
        await _check_pushed(client, answer, document)
        assert answer.headers.getall("OCI-Tag", []) == (tags if data.tags_as_parameters else [])
    for tag, digest in data.tags.items() if not data.tags_as_parameters else ():
        document = next(each for each in data.documents if each.digest == digest)
        await _check_pushed(client, await client.push_manifest(repository, tag, document.content), document)


async def _check_pushed(client: WireClient, answer: Answer, document: Document) -> None:
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == document.digest
    subject = json.loads(document.content).get("subject")
    assert answer.headers.get("OCI-Subject") == (subject["digest"] if subject else None)
    got = await client.get(answer.location)
    assert (got.status, got.body) == (200, document.content)
    assert got.headers["Content-Type"] == document.media_type


async def _check_tag_list(client: WireClient, repository: str, data: DataSet) -> None:
    tags = sorted(data.tags)
    path = f"/v2/{repository}/tags/list"
    assert (await client.get(path)).json() == {"name": repository, "tags": tags}
    for position, tag in enumerate(tags):
        rest = await client.get(path, last=tag)
        assert rest.json()["tags"] == tags[position + 1 :]
    found: list[str] = []
    target = f"{path}?n=5"
    while target:
        page = await client.get(target)
        found += page.json()["tags"]
        link = page.headers.get("Link", "")
        target = link.partition(">")[0].removeprefix("<")
        assert not link or link.endswith('; rel="next"')
    assert found == tags


async def _check_manifests(client: WireClient, repository: str, data: DataSet) -> None:
    by_digest = {document.digest: document for document in data.documents}
    named = [*data.tags.items(), *((digest, digest) for digest in by_digest)]
    for reference, digest in named:
        document = by_digest[digest]
        path = f"/v2/{repository}/manifests/{reference}"
        head, got = await client.head(path), await client.get(path)
        assert (head.status, head.body) == (200, b"")
        assert (got.status, got.body) == (200, document.content)
        for answer in (head, got):
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Type"] == document.media_type
            assert answer.headers["Content-Length"] == str(len(document.content))
        known = await client.get(path, headers={"If-None-Match": got.headers["ETag"]})
        assert (known.status, known.body) == (304, b"")
    for digest, content in data.blobs.items():
        assert (await client.get(f"/v2/{repository}/blobs/{digest}")).body == content


async def _check_referrers(client: WireClient, repository: str, data: DataSet) -> None:
    for subject, expected in data.referrers.items():
        path = f"/v2/{repository}/referrers/{subject}"
        everything = await client.get(path)
        assert everything.status == 200
        assert everything.headers["Content-Type"] == OCI_INDEX
        assert "OCI-Filters-Applied" not in everything.headers
        document = everything.json()
        assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
        assert _sorted(document["manifests"]) == _sorted(expected)
        for kind in {FIRST, SECOND, CONFIG}:
            filtered = await client.get(path, artifactType=kind)
            assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
            wanted = [entry for entry in expected if entry.get("artifactType") == kind]
            assert _sorted(filtered.json()["manifests"]) == _sorted(wanted)


def _sorted(descriptors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(descriptors, key=lambda descriptor: str(descriptor["digest"]))


async def _delete(client: WireClient, repository: str, data: DataSet) -> None:
    """Delete tags, manifests and blobs; each is gone on the very next request, and only it."""
    for tag, digest in data.tags.items():
        await _delete_one(client, f"/v2/{repository}/manifests/{tag}")
        assert (await client.head(f"/v2/{repository}/manifests/{digest}")).status == 200
    assert (await client.get(f"/v2/{repository}/tags/list")).json()["tags"] == []
    for digest in dict.fromkeys(document.digest for document in reversed(data.documents)):
        await _delete_one(client, f"/v2/{repository}/manifests/{digest}")
    for subject in data.referrers:
        assert (await client.get(f"/v2/{repository}/referrers/{subject}")).json()["manifests"] == []
    for digest in data.blobs:
        await _delete_one(client, f"/v2/{repository}/blobs/{digest}")


async def _delete_one(client: WireClient, path: str) -> None:
    assert (await client.delete(path)).status == 202
    for method in ("HEAD", "GET", "DELETE"):
        assert (await client.send(method, path)).status == 404


async def test_a_deleted_image_takes_its_tags_with_it(client: WireClient, repository: str) -> None:
    data = image()
    data.tags["second"] = data.documents[0].digest
    await _push(client, repository, data)
    await _delete_one(client, f"/v2/{repository}/manifests/{data.documents[0].digest}")
    for tag in data.tags:
        assert (await client.get(f"/v2/{repository}/manifests/{tag}")).status == 404
    assert (await client.get(f"/v2/{repository}/tags/list")).json()["tags"] == []


async def test_a_moved_tag_leaves_the_image_it_left(client: WireClient, repository: str) -> None:
    before, after = build_image([b"before"]), build_image([b"after"])
    data = DataSet().add(before, "moving").add(after)
    await _push(client, repository, data)
    assert (await client.push_manifest(repository, "moving", after.manifest)).status == 201
    assert (await client.get(f"/v2/{repository}/manifests/moving")).body == after.manifest
    assert (await client.get(f"/v2/{repository}/manifests/{before.digest}")).body == before.manifest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_bytes_of_another_digest(algorithm: str, client: WireClient, repository: str) -> None:
    data = image()
    for content in data.blobs.values():
        await client.push_blob(repository, content)
    content = data.documents[0].content
    digest = digest_of(content, algorithm)
    answer = await client.push_manifest(repository, digest, content + b"  ", OCI_MANIFEST)
    assert answer.status == 400
    assert answer.codes == ["DIGEST_INVALID"]
    assert (await client.head(f"/v2/{repository}/manifests/{digest}")).status == 404


async def test_the_media_type_may_be_left_to_the_document(client: WireClient, repository: str) -> None:
    data = image()
    for content in data.blobs.values():
        await client.push_blob(repository, content)
    answer = await client.send("PUT", f"/v2/{repository}/manifests/v1", body=data.documents[0].content)
    assert answer.status == 201
    assert (await client.head(f"/v2/{repository}/manifests/v1")).headers["Content-Type"] == OCI_MANIFEST


async def test_the_media_type_may_be_left_to_the_header(client: WireClient, repository: str) -> None:
    data = DataSet()
    config = data.add_blob(b"{}", CONFIG)
    content = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    await client.push_blob(repository, b"{}")
    assert (await client.push_manifest(repository, "v1", content, f"{OCI_MANIFEST}; charset=utf-8")).status == 201
    assert (await client.head(f"/v2/{repository}/manifests/v1")).headers["Content-Type"] == OCI_MANIFEST


async def test_the_same_bytes_are_of_one_media_type(client: WireClient, repository: str) -> None:
    """Whoever pushes bytes first must not decide as what they are served to others."""
    data = DataSet()
    config = data.add_blob(b"{}", CONFIG)
    content = json.dumps(
        {"schemaVersion": 2, "config": config, "layers": [], "annotations": {"a": repository}}
    ).encode()
    await client.push_blob(repository, b"{}")
    assert (await client.push_manifest(repository, "v1", content, DOCKER_MANIFEST)).status == 400
    assert (await client.push_manifest(repository, "v1", content, OCI_MANIFEST)).status == 201


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ],
)
async def test_docker_schema_1_is_refused_and_says_so(media_type: str, client: WireClient, repository: str) -> None:
    content = json.dumps({"schemaVersion": 1, "name": repository, "tag": "v1", "fsLayers": [], "history": []}).encode()
    answer = await client.push_manifest(repository, "v1", content, media_type)
    assert answer.status == 400
    assert answer.codes == ["MANIFEST_INVALID"]
    assert "schema 1" in answer.json()["errors"][0]["message"]


async def test_many_referrers_come_in_pages(client: WireClient, repository: str) -> None:
    subject = build_image([b"subject"])
    data = DataSet().add(subject)
    for number in range(7):
        data.add(build_image([b"%d" % number], artifact_type=FIRST, subject=subject))
    await _push(client, repository, data)
    found: list[str] = []
    target = f"/v2/{repository}/referrers/{subject.digest}?n=3&artifactType={FIRST}"
    while target:
        page = await client.get(target)
        assert page.headers["OCI-Filters-Applied"] == "artifactType"
        found += [entry["digest"] for entry in page.json()["manifests"]]
        target = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert found == sorted(document.digest for document in data.documents[1:])


async def test_the_catalog_lists_repositories_in_pages(client: WireClient, repository: str) -> None:
    names = sorted(f"{repository}/{letter}" for letter in "abcdefg")
    for name in names:
        await client.push_blob(name, b"{}")
    found: list[str] = []
    target = f"/v2/_catalog?n=3&last={repository}/"
    while target and not set(names) <= set(found):
        page = await client.get(target)
        found += page.json()["repositories"]
        target = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert found[: len(names)] == names
