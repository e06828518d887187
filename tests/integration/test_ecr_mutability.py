"""Which tags may move, on every path that can move one (ECR §7, §19 (20), (21); reliability SEC-14)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import tags
from tests.support.clock import FakeClock
from tests.support.ecr_images import push, put_manifest, upload
from tests.support.ecr_node import ecr_nodes, node
from tests.support.images import build_image
from tests.support.pull_through_node import HUB, caching_node
from tests.support.single_node import NODE
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes
    from tests.support.images import Built

FIRST, SECOND = build_image([b"first"]), build_image([b"second"])
FILTERS = ("v*", "a.b")
EXCLUDED, OTHERS = ("v1", "a.b"), ("x1", "V1", "axb", "xv1")
MOVES = {
    TagMutability.MUTABLE: (True, True),
    TagMutability.IMMUTABLE: (False, False),
    TagMutability.MUTABLE_WITH_EXCLUSION: (False, True),
    TagMutability.IMMUTABLE_WITH_EXCLUSION: (True, False),
}
"""Whether a tag that a filter names may move, and whether another one may."""
CASES = [(setting, tag, MOVES[setting][tag in OTHERS]) for setting in MOVES for tag in (*EXCLUDED, *OTHERS)]
REGION = "123456789012/us-east-1"
WEST = "123456789012/us-west-2"


def name_of(setting: TagMutability) -> str:
    return f"team/{setting.value.lower()}"


def create_all(client: Any) -> None:
    """Create a repository of each setting."""
    for setting in MOVES:
        filters = [{"filterType": "WILDCARD", "filter": text} for text in FILTERS]
        more = {"imageTagMutabilityExclusionFilters": filters} if "EXCLUSION" in setting else {}
        client.create_repository(repositoryName=name_of(setting), imageTagMutability=setting.value, **more)


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        create_all(nodes.client())
        yield nodes


def digest_of(ecr: EcrNodes, repository: str, tag: str, name: str = REGION) -> str | None:
    async def find() -> str | None:
        register = await ecr.node(name).registry.database.read(tags.find(RepositoryName(repository), Tag(tag)))
        return None if register is None else register.digest

    return ecr.run(find())


def put_image(client: Any, repository: str, built: Built, tag: str) -> str | None:
    """Push by the API; return the code of what went wrong."""
    try:
        client.put_image(repositoryName=repository, imageManifest=built.manifest.decode(), imageTag=tag)
    except ClientError as error:
        refusal = error.response["Error"]
    else:
        return None
    code, message = refusal["Code"], refusal["Message"]
    assert code != "ImageTagAlreadyExistsException" or message == immutable(repository, tag)
    return str(code)


def immutable(repository: str, tag: str) -> str:
    return (
        f"The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because the"
        " tag is immutable."
    )


def test_by_the_api(ecr: EcrNodes) -> None:
    client = ecr.client()
    for setting in MOVES:
        upload(ecr, name_of(setting), FIRST)
        upload(ecr, name_of(setting), SECOND)
    found, expected = {}, {}
    for setting, tag, moves in CASES:
        assert put_image(client, name_of(setting), FIRST, tag) is None, "a new tag can always be set"
        assert put_image(client, name_of(setting), FIRST, tag) == "ImageAlreadyExistsException"
        code = put_image(client, name_of(setting), SECOND, tag)
        found[setting, tag] = (code, digest_of(ecr, name_of(setting), tag))
        expected[setting, tag] = (None, SECOND.digest) if moves else ("ImageTagAlreadyExistsException", FIRST.digest)
    assert found == expected


@pytest.mark.parametrize("by_parameter", [False, True])
def test_by_the_registry(ecr: EcrNodes, by_parameter: bool) -> None:
    for setting in MOVES:
        upload(ecr, name_of(setting), FIRST)
        upload(ecr, name_of(setting), SECOND)
    found, expected = {}, {}
    for setting, tag, moves in CASES:
        repository = name_of(setting)
        for _ in range(2):
            assert put_manifest(ecr, repository, FIRST, tag).status == 201, "the same digest moves nothing"
        reference = f"{SECOND.digest}?tag={tag}" if by_parameter else tag
        answer = put_manifest(ecr, repository, SECOND, reference)
        error = answer.json()["errors"][0] if answer.status != 201 else {"code": None, "message": ""}
        found[setting, tag] = (answer.status, error["code"], digest_of(ecr, repository, tag))
        expected[setting, tag] = (201, None, SECOND.digest) if moves else (400, "TAG_INVALID", FIRST.digest)
        assert moves or error["message"] == immutable(repository, tag)
    assert found == expected


def test_by_replication(tmp_path: Path) -> None:
    rule = {"name": "all", "destinations": [{"account": "123456789012", "region": "us-west-2"}]}
    with ecr_nodes(tmp_path, nodes=[node(replication={"rules": [rule]}), node("us-west-2")]) as ecr:
        create_all(ecr.client(node=WEST, region="us-west-2"))
        for setting, tag, _ in CASES:
            push(ecr, name_of(setting), FIRST, tag, WEST)
            push(ecr, name_of(setting), SECOND, tag, REGION)

        async def arrived() -> bool:
            client_of = ecr.node(REGION).replication.use_cases.status
            return all([await _is_complete(client_of, setting) for setting in MOVES])

        ecr.until(arrived)
        found = {(setting, tag): digest_of(ecr, name_of(setting), tag, WEST) for setting, tag, _ in CASES}
        assert found == {(setting, tag): SECOND.digest if moves else FIRST.digest for setting, tag, moves in CASES}


async def _is_complete(status: Any, setting: TagMutability) -> bool:
    rows = await status.of_image(RepositoryName(name_of(setting)), SECOND.digest)
    names = {tag for known, tag, _ in CASES if known is setting}
    return {str(one.tag) for one in rows if one.status.value == "COMPLETE"} >= names


@pytest.mark.parametrize("setting", MOVES)
async def test_by_the_cache(tmp_path: Path, setting: TagMutability) -> None:
    filters = FILTERS if "EXCLUSION" in setting else ()
    settings = RegistrySettings(NODE, mutability=MutabilityRule(setting, filters))
    clock, names = FakeClock(1_000_000.0), [tag for known, tag, _ in CASES if known is setting]
    checked_first = replace(HUB, stale_while_revalidate=0.0)
    async with (
        FakeRegistry() as upstream,
        caching_node(tmp_path, {"hub": upstream}, clock, settings=settings, rules=[checked_first]) as cached,
    ):
        old = new = upstream.add_image("library/alpine", names[0], [b"old"])
        for tag in names:
            upstream.add_image("library/alpine", tag, [b"old"])
            await cached.manifest(Tag(tag))
            new = upstream.add_image("library/alpine", tag, [b"new"])
        clock.advance(HUB.fresh_for)
        found = {tag: (await cached.manifest(Tag(tag))).digest for tag in names}
        assert found == {tag: new.digest if moves else old.digest for known, tag, moves in CASES if known is setting}


def test_a_filter_without_its_setting_and_a_setting_without_filters_are_refused(ecr: EcrNodes) -> None:
    client = ecr.client()
    with pytest.raises(client.exceptions.InvalidParameterException):
        client.put_image_tag_mutability(repositoryName="team/mutable", imageTagMutability="IMMUTABLE_WITH_EXCLUSION")


@pytest.mark.parametrize("by_api", [True, False])
def test_of_many_pushes_of_one_immutable_tag_one_wins(ecr: EcrNodes, by_api: bool) -> None:
    repository = name_of(TagMutability.IMMUTABLE)
    images = [build_image([b"%d" % number]) for number in range(8)]
    for built in images:
        upload(ecr, repository, built)
    client = ecr.client()

    def push_one(built: Built) -> bool:
        if by_api:
            code = put_image(client, repository, built, "v1")
            assert code in {None, "ImageTagAlreadyExistsException"}
            return code is None
        answer = put_manifest(ecr, repository, built, "v1")
        assert answer.status in {201, 400}
        return answer.status == 201

    with ThreadPoolExecutor(len(images)) as pool:
        won = list(pool.map(push_one, images))
    assert won.count(True) == 1
    assert digest_of(ecr, repository, "v1") == images[won.index(True)].digest


class TestDeletion:
    def test_an_immutable_tag_is_deleted_by_who_may_delete_and_can_be_set_anew(self, ecr: EcrNodes) -> None:
        repository, client = name_of(TagMutability.IMMUTABLE), ecr.client()
        push(ecr, repository, FIRST, "v1")
        answer = client.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}])
        assert answer["failures"] == []
        push(ecr, repository, SECOND, "v1")
        assert digest_of(ecr, repository, "v1") == SECOND.digest

    def test_a_protected_tag_always_leads_to_the_same_image(self, tmp_path: Path) -> None:
        protecting = {"protect_immutable_tags": True}
        with ecr_nodes(tmp_path, nodes=[node(repositories=protecting)]) as ecr:
            client = ecr.client()
            create_all(client)
            for setting in MOVES:
                push(ecr, name_of(setting), FIRST, "v1")
                push(ecr, name_of(setting), FIRST, "x1")
            repository = name_of(TagMutability.IMMUTABLE_WITH_EXCLUSION)
            for wanted in ({"imageTag": "x1"}, {"imageDigest": FIRST.digest}):
                with pytest.raises(ClientError) as caught:
                    client.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}, wanted])
                assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
                assert digest_of(ecr, repository, "v1") == FIRST.digest, "nothing of the batch is done"
            for reference in ("x1", FIRST.digest):
                refused = ecr.send("DELETE", f"/v2/{repository}/manifests/{reference}")
                assert (refused.status, refused.json()["errors"][0]["code"]) == (403, "DENIED")
            assert digest_of(ecr, repository, "x1") == FIRST.digest
            assert ecr.send("DELETE", f"/v2/{repository}/manifests/v1").status == 202
            assert ecr.send("DELETE", f"/v2/{name_of(TagMutability.MUTABLE)}/manifests/{FIRST.digest}").status == 202
