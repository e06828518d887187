"""Pull-through cache rules, as boto3 sees them, and as the running cache works by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, OTHER_ACCOUNT, REGION, ecr_nodes, node
from tests.support.images import build_image
from tests.support.threaded_upstream import ThreadedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:ecr-pullthroughcache/hub-AbCdEf"
LOST = SECRET.replace("hub", "lost")
EMPTY = SECRET.replace("hub", "empty")
UNKNOWN = SECRET.replace("hub", "unknown")
IMAGE, NEWER = build_image([b"image"]), build_image([b"newer"])
DAY = 24 * 3600.0


@pytest.fixture
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as running:
        yield running


def document(directory: Path, upstream: ThreadedUpstream) -> dict[str, Any]:
    for name, text in (("hub", "password"), ("lost", "password"), ("empty", "password")):
        (directory / name).write_text(text)
    return {
        "upstreams": [
            {"name": "hub", "url": upstream.url, "preset": "docker-hub"},
            {"name": "quay.io", "url": upstream.url},
            {"name": "office", "url": upstream.url},
        ],
        "secrets": [
            {"arn": arn, "username": "dev", "access_token": {"file": str(directory / name)}}
            for arn, name in ((SECRET, "hub"), (LOST, "lost"), (EMPTY, "empty"))
        ],
    }


@pytest.fixture
def ecr(tmp_path: Path, upstream: ThreadedUpstream) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, document(tmp_path, upstream)) as nodes:
        yield nodes


def api(ecr: EcrNodes) -> Any:
    """Return the nodes' client: a new one each time takes a second."""
    return ecr._clients[0] if ecr._clients else ecr.client()


def error_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def answer(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "ResponseMetadata"}


def create(ecr: EcrNodes, prefix: str, url: str = "quay.io", **members: str) -> dict[str, Any]:
    return answer(
        api(ecr).create_pull_through_cache_rule(ecrRepositoryPrefix=prefix, upstreamRegistryUrl=url, **members)
    )


def refused(ecr: EcrNodes, prefix: str, url: str = "quay.io", **members: str) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        create(ecr, prefix, url, **members)
    return error_of(error)


def prefixes(ecr: EcrNodes) -> list[str]:
    found = api(ecr).describe_pull_through_cache_rules()["pullThroughCacheRules"]
    return [one["ecrRepositoryPrefix"] for one in found]


def pull(ecr: EcrNodes, repository: str, reference: str = "v1") -> tuple[int, bytes]:
    reply = ecr.send("GET", f"/v2/{repository}/manifests/{reference}")
    return reply.status, reply.body


def test_a_rule_is_made_listed_changed_and_deleted(ecr: EcrNodes) -> None:
    client = api(ecr)
    made = create(ecr, "hub", "registry-1.docker.io", credentialArn=SECRET, upstreamRegistry="docker-hub")
    assert made == {
        "ecrRepositoryPrefix": "hub",
        "upstreamRegistryUrl": "registry-1.docker.io",
        "createdAt": ecr.now,
        "registryId": ACCOUNT,
        "upstreamRegistry": "docker-hub",
        "credentialArn": SECRET,
        "upstreamRepositoryPrefix": "ROOT",
    }
    ecr.advance(60)
    role = f"arn:aws:iam::{ACCOUNT}:role/cache"
    changed = answer(client.update_pull_through_cache_rule(ecrRepositoryPrefix="hub", customRoleArn=role))
    assert changed == {
        "ecrRepositoryPrefix": "hub",
        "registryId": ACCOUNT,
        "updatedAt": ecr.now,
        "credentialArn": SECRET,
        "customRoleArn": role,
        "upstreamRepositoryPrefix": "ROOT",
    }
    (listed,) = client.describe_pull_through_cache_rules(ecrRepositoryPrefixes=["hub"])["pullThroughCacheRules"]
    assert listed == {**made, "customRoleArn": role, "updatedAt": ecr.now}
    deleted = answer(client.delete_pull_through_cache_rule(ecrRepositoryPrefix="hub"))
    assert deleted == {name: value for name, value in listed.items() if name not in {"updatedAt", "upstreamRegistry"}}
    assert prefixes(ecr) == []


def test_rules_are_listed_by_pages_and_missing_ones_are_named(ecr: EcrNodes) -> None:
    client = api(ecr)
    for prefix in ("team-b", "team-a", "ROOT"):
        create(ecr, prefix)
    assert prefixes(ecr) == ["ROOT", "team-a", "team-b"]
    pages = client.get_paginator("describe_pull_through_cache_rules").paginate(PaginationConfig={"PageSize": 2})
    assert [[one["ecrRepositoryPrefix"] for one in page["pullThroughCacheRules"]] for page in pages] == [
        ["ROOT", "team-a"],
        ["team-b"],
    ]
    unknown: tuple[tuple[str, dict[str, object]], ...] = (
        ("describe_pull_through_cache_rules", {"ecrRepositoryPrefixes": ["team-a", "unknown"]}),
        ("update_pull_through_cache_rule", {"ecrRepositoryPrefix": "unknown", "credentialArn": SECRET}),
        ("delete_pull_through_cache_rule", {"ecrRepositoryPrefix": "unknown"}),
        ("validate_pull_through_cache_rule", {"ecrRepositoryPrefix": "unknown"}),
    )
    for operation, given in unknown:
        with pytest.raises(ClientError) as error:
            getattr(client, operation)(**given)
        assert error_of(error) == (
            "PullThroughCacheRuleNotFoundException",
            f"The pull through cache rule with prefix 'unknown' does not exist in the registry with id '{ACCOUNT}'",
        )


def test_what_ecr_does_not_take_is_refused(ecr: EcrNodes) -> None:
    assert refused(ecr, "ms", "mcr.microsoft.com")[0] == "UnsupportedUpstreamRegistryException"
    assert refused(ecr, "ms", "not a host")[0] == "UnsupportedUpstreamRegistryException"
    for url in ("registry-1.docker.io", "ghcr.io", "registry.gitlab.com", "mine.azurecr.io", "cgr.dev"):
        code, text = refused(ecr, "cached", url)
        assert (code, "requires authentication" in text) == ("UnsupportedUpstreamRegistryException", True)
    assert refused(ecr, "cached", upstreamRegistry="k8s")[0] == "UnsupportedUpstreamRegistryException"
    assert refused(ecr, "ROOT", upstreamRepositoryPrefix="team")[0] == "InvalidParameterException"
    foreign = f"{OTHER_ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert refused(ecr, "foreign", foreign)[0] == "InvalidParameterException"
    assert refused(ecr, "X/Y")[0] == "InvalidParameterException"
    create(ecr, "cached")
    for again in ("cached", "cached/"):
        assert refused(ecr, again)[0] == "PullThroughCacheRuleAlreadyExistsException"
    assert prefixes(ecr) == ["cached"]


def test_fifty_rules_are_the_most(ecr: EcrNodes) -> None:
    for number in range(50):
        create(ecr, f"cached-{number}")
    assert refused(ecr, "one-more")[0] == "LimitExceededException"
    assert len(prefixes(ecr)) == 50


def test_a_secret_must_be_there_and_readable(ecr: EcrNodes) -> None:
    (ecr.directory / "lost").unlink()
    (ecr.directory / "empty").write_text("")
    for arn, code in (
        (UNKNOWN, "SecretNotFoundException"),
        (LOST, "UnableToAccessSecretException"),
        (EMPTY, "UnableToDecryptSecretValueException"),
    ):
        assert refused(ecr, "hub", "registry-1.docker.io", credentialArn=arn)[0] == code
        create(ecr, "cached")
        with pytest.raises(ClientError) as error:
            api(ecr).update_pull_through_cache_rule(ecrRepositoryPrefix="cached", credentialArn=arn)
        assert error_of(error)[0] == code
        api(ecr).delete_pull_through_cache_rule(ecrRepositoryPrefix="cached")
    assert prefixes(ecr) == []


def test_a_rule_holds_from_the_next_pull_on_and_its_end_keeps_what_it_brought(
    ecr: EcrNodes, upstream: ThreadedUpstream
) -> None:
    upstream.registry.add("library/alpine", IMAGE, "v1")
    upstream.registry.add("library/other", NEWER, "v1")
    assert pull(ecr, "cached/library/alpine")[0] == 404
    assert upstream.registry.requests == []
    create(ecr, "cached")
    assert pull(ecr, "cached/library/alpine") == (200, IMAGE.manifest)
    for digest, content in IMAGE.blobs.items():
        assert ecr.send("GET", f"/v2/cached/library/alpine/blobs/{digest}").body == content
    assert [one["repositoryName"] for one in api(ecr).describe_repositories()["repositories"]] == [
        "cached/library/alpine"
    ]
    assert ecr.send("POST", "/v2/cached/library/alpine/blobs/uploads/", b"").status == 403
    api(ecr).delete_pull_through_cache_rule(ecrRepositoryPrefix="cached")
    asked = len(upstream.registry.requests)
    assert pull(ecr, "cached/library/alpine") == (200, IMAGE.manifest)
    assert pull(ecr, "cached/library/other")[0] == 404
    assert len(upstream.registry.requests) == asked


@pytest.mark.parametrize(
    ("prefix", "upstream_prefix", "local", "remote"),
    [
        ("ecr-public", None, "ecr-public/my-app/image1", "my-app/image1"),
        ("ROOT", None, "my-app/image1", "my-app/image1"),
        ("team-a", "team-a", "team-a/myapp/image1", "team-a/myapp/image1"),
        ("my-app", "upstream-app", "my-app/image1", "upstream-app/image1"),
        ("docker-hub/", None, "docker-hub/library/alpine", "library/alpine"),
    ],
)
def test_names_are_mapped_as_ecr_maps_them(
    ecr: EcrNodes, upstream: ThreadedUpstream, prefix: str, upstream_prefix: str | None, local: str, remote: str
) -> None:
    upstream.registry.add(remote, IMAGE, "v1")
    members = {} if upstream_prefix is None else {"upstreamRepositoryPrefix": upstream_prefix}
    create(ecr, prefix, **members)
    assert pull(ecr, local) == (200, IMAGE.manifest)


def test_the_longest_prefix_answers_and_a_slash_is_implied(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    upstream.registry.add("deep/app", IMAGE, "v1")
    upstream.registry.add("app", NEWER, "v1")
    create(ecr, "team")
    create(ecr, "team/deep")
    assert pull(ecr, "team/deep/app") == (200, NEWER.manifest)
    assert pull(ecr, "teams/app")[0] == 404
    api(ecr).delete_pull_through_cache_rule(ecrRepositoryPrefix="team/deep")
    assert pull(ecr, "team/deep/app", "v1")[0] == 200


def test_a_tag_is_asked_about_once_a_day(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    upstream.registry.add("app", IMAGE, "latest")
    create(ecr, "cached")
    assert pull(ecr, "cached/app", "latest") == (200, IMAGE.manifest)
    asked = len(upstream.registry.requests)
    upstream.registry.add("app", NEWER, "latest")
    ecr.advance(DAY / 2)
    for _ in range(5):
        assert pull(ecr, "cached/app", "latest") == (200, IMAGE.manifest)
    assert len(upstream.registry.requests) == asked
    ecr.advance(DAY)
    assert pull(ecr, "cached/app", "latest") == (200, NEWER.manifest)


def test_rules_survive_a_restart_and_a_lost_upstream_takes_its_rule_out_of_force(
    tmp_path: Path, upstream: ThreadedUpstream
) -> None:
    upstream.registry.add("app", IMAGE, "v1")
    whole = document(tmp_path, upstream)
    with ecr_nodes(tmp_path, whole) as ecr:
        create(ecr, "cached", "office")
        create(ecr, "quay")
    with ecr_nodes(tmp_path, whole) as ecr:
        assert prefixes(ecr) == ["cached", "quay"]
        assert pull(ecr, "cached/app") == (200, IMAGE.manifest)
    whole["upstreams"].pop()
    with ecr_nodes(tmp_path, whole) as ecr:
        assert prefixes(ecr) == ["cached", "quay"]
        assert pull(ecr, "cached/app") == (200, IMAGE.manifest)
        assert pull(ecr, "cached/unknown")[0] == 404
        found = api(ecr).validate_pull_through_cache_rule(ecrRepositoryPrefix="cached")
        assert (found["isValid"], "office" in found["failure"]) == (False, True)


def test_rules_of_the_file_are_shown_and_cannot_be_changed(tmp_path: Path, upstream: ThreadedUpstream) -> None:
    declared = node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}, {"prefix": "office", "upstream": "office"}]})
    with ecr_nodes(tmp_path, document(tmp_path, upstream), nodes=[declared]) as ecr:
        client = api(ecr)
        hub, office = client.describe_pull_through_cache_rules()["pullThroughCacheRules"]
        assert (hub["upstreamRegistryUrl"], hub["upstreamRegistry"]) == ("registry-1.docker.io", "docker-hub")
        assert office["upstreamRegistryUrl"] == upstream.url.removeprefix("http://")
        assert refused(ecr, "hub", credentialArn=SECRET)[0] == "PullThroughCacheRuleAlreadyExistsException"
        for change, given in (("delete", {}), ("update", {"credentialArn": SECRET})):
            with pytest.raises(ClientError, match=r"is declared in .*replicator\.yaml") as error:
                getattr(client, f"{change}_pull_through_cache_rule")(ecrRepositoryPrefix="hub", **given)
            assert error_of(error)[0] == "InvalidParameterException"


def test_validation_connects_and_logs_in(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    client = api(ecr)
    create(ecr, "cached")
    create(ecr, "hub", "registry-1.docker.io", credentialArn=SECRET)

    def validated(prefix: str) -> dict[str, Any]:
        return answer(client.validate_pull_through_cache_rule(ecrRepositoryPrefix=prefix))

    assert validated("cached") == {
        "ecrRepositoryPrefix": "cached",
        "registryId": ACCOUNT,
        "upstreamRegistryUrl": "quay.io",
        "upstreamRepositoryPrefix": "ROOT",
        "isValid": True,
    }
    upstream.registry.basic = ("dev", "password")
    assert validated("hub")["isValid"] is True
    found = validated("cached")
    assert (found["isValid"], bool(found["failure"])) == (False, True)
    upstream.registry.basic = ("dev", "another password")
    found = validated("hub")
    assert (found["isValid"], "password" in found["failure"].replace("passwords", "")) == (False, False)
    assert validated("hub")["isValid"] is False


def test_a_rule_logs_in_with_its_secret(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    upstream.registry.add("library/alpine", IMAGE, "v1")
    upstream.registry.basic = ("dev", "password")
    create(ecr, "hub", "registry-1.docker.io", credentialArn=SECRET)
    create(ecr, "cached")
    assert pull(ecr, "hub/library/alpine") == (200, IMAGE.manifest)
    assert pull(ecr, "cached/library/alpine")[0] != 200


def test_what_one_upstream_did_not_have_is_asked_of_the_next_at_once(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    """A rule that is replaced inherits neither failures nor lists of the one before."""
    upstream.registry.add("new/app", IMAGE, "v1")
    upstream.registry.add("old/app", NEWER, "v2")
    create(ecr, "team", upstreamRepositoryPrefix="old")
    assert pull(ecr, "team/app", "v1")[0] == 404
    assert ecr.send("GET", "/v2/team/app/tags/list").json()["tags"] == ["v2"]
    assert ecr.send("GET", f"/v2/team/app/blobs/{IMAGE.config}").status == 404
    api(ecr).delete_pull_through_cache_rule(ecrRepositoryPrefix="team")
    create(ecr, "team", upstreamRepositoryPrefix="new")
    assert ecr.send("GET", f"/v2/team/app/blobs/{IMAGE.config}").status == 200
    assert pull(ecr, "team/app", "v1") == (200, IMAGE.manifest)
    assert ecr.send("GET", "/v2/team/app/tags/list").json()["tags"] == ["v1"]
