"""Repositories, their tags as resources and their settings, through boto3 (ECR §6, §7)."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, OTHER_ACCOUNT, REGION, EcrNodes, ecr_nodes, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARN = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/"
QUOTAS = {"repositories": 12, "resource_tags": 3}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    settings = node(quotas=QUOTAS, repositories={"create_on_push": False})
    with ecr_nodes(tmp_path, nodes=[settings]) as running:
        yield running


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    return ecr.client()


def refused(call: Any, **members: Any) -> tuple[str, str]:
    """Return code and text of the error that a call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def missing(name: str, account: str = ACCOUNT) -> tuple[str, str]:
    text = f"The repository with name '{name}' does not exist in the registry with id '{account}'"
    return "RepositoryNotFoundException", text


class TestCreating:
    def test_a_repository_has_ecrs_defaults(self, ecr: EcrNodes, client: Any) -> None:
        created = client.create_repository(repositoryName="team/app")["repository"]
        assert created == {
            "repositoryArn": ARN + "team/app",
            "registryId": ACCOUNT,
            "repositoryName": "team/app",
            "repositoryUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team/app",
            "createdAt": created["createdAt"],
            "imageTagMutability": "MUTABLE",
            "imageScanningConfiguration": {"scanOnPush": False},
            "encryptionConfiguration": {"encryptionType": "AES256"},
        }
        assert created["createdAt"].timestamp() == ecr.clock.now()
        assert client.describe_repositories(repositoryNames=["team/app"])["repositories"] == [created]

    def test_all_settings_are_kept(self, client: Any) -> None:
        created = client.create_repository(
            repositoryName="app",
            registryId=ACCOUNT,
            tags=[{"Key": "team", "Value": "a"}, {"Key": "stage", "Value": ""}],
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "dev-*"}],
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration={"encryptionType": "KMS_DSSE", "kmsKey": "alias/mine"},
        )["repository"]
        assert created["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
        assert created["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": "dev-*"}]
        assert created["imageScanningConfiguration"] == {"scanOnPush": True}
        assert created["encryptionConfiguration"] == {"encryptionType": "KMS_DSSE", "kmsKey": "alias/mine"}
        assert client.describe_repositories()["repositories"] == [created]
        assert client.list_tags_for_resource(resourceArn=ARN + "app")["tags"] == [
            {"Key": "team", "Value": "a"},
            {"Key": "stage", "Value": ""},
        ]

    def test_kms_without_a_key_means_the_one_of_the_account(self, client: Any) -> None:
        keys = {
            client.create_repository(repositoryName=name, encryptionConfiguration={"encryptionType": "KMS"})[
                "repository"
            ]["encryptionConfiguration"]["kmsKey"]
            for name in ("one", "two")
        }
        assert len(keys) == 1
        assert keys.pop().startswith(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/")

    def test_aes256_has_no_key(self, client: Any) -> None:
        code, _ = refused(
            client.create_repository,
            repositoryName="app",
            encryptionConfiguration={"encryptionType": "AES256", "kmsKey": "alias/mine"},
        )
        assert code == "InvalidParameterException"
        assert client.describe_repositories()["repositories"] == []

    def test_a_name_is_given_once(self, client: Any) -> None:
        client.create_repository(repositoryName="app", imageTagMutability="IMMUTABLE")
        assert refused(client.create_repository, repositoryName="app") == (
            "RepositoryAlreadyExistsException",
            f"The repository with name 'app' already exists in the registry with id '{ACCOUNT}'",
        )
        assert client.describe_repositories()["repositories"][0]["imageTagMutability"] == "IMMUTABLE"

    def test_of_many_at_once_one_makes_it(self, ecr: EcrNodes) -> None:
        clients = [ecr.client() for _ in range(6)]

        def make(client: Any) -> str:
            try:
                client.create_repository(repositoryName="app")
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return "made"

        with ThreadPoolExecutor(6) as pool:
            outcomes = Counter(pool.map(make, clients))
        assert outcomes == {"made": 1, "RepositoryAlreadyExistsException": 5}

    @pytest.mark.parametrize("name", ["a--b", "ab", "a__b/c.d", "a" * 256])
    def test_names_that_ecr_takes(self, client: Any, name: str) -> None:
        assert client.create_repository(repositoryName=name)["repository"]["repositoryName"] == name
        assert client.delete_repository(repositoryName=name)["repository"]["repositoryName"] == name

    @pytest.mark.parametrize("name", ["a..b", "-a", "AB", "a/", "a//b", "a___b", "a" * 257])
    def test_names_that_ecr_refuses(self, client: Any, name: str) -> None:
        code, text = refused(client.create_repository, repositoryName=name)
        assert code == "InvalidParameterException"
        assert text.startswith("Invalid parameter at 'repositoryName' failed to satisfy constraint: '")

    def test_a_registry_takes_so_many(self, client: Any) -> None:
        for number in range(QUOTAS["repositories"]):
            client.create_repository(repositoryName=f"app-{number}")
        assert refused(client.create_repository, repositoryName="one-more") == (
            "LimitExceededException",
            f"The registry with id '{ACCOUNT}' already has the maximum allowed number of repositories which is '12'",
        )


class TestDescribing:
    def test_pages_go_on_where_the_last_one_ended(self, client: Any) -> None:
        names = ["a", "b", "c", "d", "e"]
        for name in reversed(names):
            client.create_repository(repositoryName=f"{name}{name}")
        first = client.describe_repositories(maxResults=2)
        assert [one["repositoryName"] for one in first["repositories"]] == ["aa", "bb"]
        client.create_repository(repositoryName="ab")
        client.delete_repository(repositoryName="bb")
        client.delete_repository(repositoryName="dd")
        second = client.describe_repositories(maxResults=2, nextToken=first["nextToken"])
        assert [one["repositoryName"] for one in second["repositories"]] == ["cc", "ee"]
        assert "nextToken" not in second

    def test_the_paginator_sees_all(self, client: Any) -> None:
        for number in range(7):
            client.create_repository(repositoryName=f"app-{number}")
        pages = client.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 3})
        assert [len(page["repositories"]) for page in pages] == [3, 3, 1]

    def test_a_token_of_nobodys_is_refused(self, client: Any) -> None:
        code, _ = refused(client.describe_repositories, nextToken="bogus")
        assert code == "InvalidParameterException"

    def test_one_that_is_missing_fails_the_whole(self, client: Any) -> None:
        client.create_repository(repositoryName="here")
        assert refused(client.describe_repositories, repositoryNames=["here", "gone"]) == missing("gone")

    @pytest.mark.parametrize("more", [{"maxResults": 5}, {"nextToken": "x"}])
    def test_names_are_not_paged(self, client: Any, more: dict[str, Any]) -> None:
        client.create_repository(repositoryName="here")
        code, _ = refused(client.describe_repositories, repositoryNames=["here"], **more)
        assert code == "InvalidParameterException"

    def test_there_need_be_none(self, client: Any) -> None:
        assert client.describe_repositories()["repositories"] == []


class TestDeleting:
    def test_an_empty_one_goes_and_is_shown_once_more(self, client: Any) -> None:
        created = client.create_repository(repositoryName="app")["repository"]
        assert client.delete_repository(repositoryName="app")["repository"] == created
        assert refused(client.delete_repository, repositoryName="app") == missing("app")
        assert refused(client.describe_repositories, repositoryNames=["app"]) == missing("app")

    def test_tags_do_not_come_back(self, client: Any) -> None:
        client.create_repository(repositoryName="app", tags=[{"Key": "a", "Value": "1"}])
        client.delete_repository(repositoryName="app")
        client.create_repository(repositoryName="app")
        assert client.list_tags_for_resource(resourceArn=ARN + "app")["tags"] == []


class TestTagsOfResources:
    def test_tags_are_added_replaced_and_taken_away(self, client: Any) -> None:
        client.create_repository(repositoryName="app", tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        client.tag_resource(resourceArn=ARN + "app", tags=[{"Key": "a", "Value": "3"}, {"Key": "c", "Value": "4"}])
        assert client.list_tags_for_resource(resourceArn=ARN + "app")["tags"] == [
            {"Key": "a", "Value": "3"},
            {"Key": "b", "Value": "2"},
            {"Key": "c", "Value": "4"},
        ]
        client.untag_resource(resourceArn=ARN + "app", tagKeys=["a", "never"])
        assert [one["Key"] for one in client.list_tags_for_resource(resourceArn=ARN + "app")["tags"]] == ["b", "c"]

    def test_a_resource_takes_so_many(self, client: Any) -> None:
        four = [{"Key": str(number), "Value": ""} for number in range(4)]
        text = (
            "The list of tags on the repository is over the limit. The maximum number of tags that can be applied to a"
            " repository is 3."
        )
        assert refused(client.create_repository, repositoryName="app", tags=four) == ("TooManyTagsException", text)
        client.create_repository(repositoryName="app", tags=four[:3])
        assert refused(client.tag_resource, resourceArn=ARN + "app", tags=four[3:]) == ("TooManyTagsException", text)
        client.tag_resource(resourceArn=ARN + "app", tags=[{"Key": "0", "Value": "new"}])
        tags = client.list_tags_for_resource(resourceArn=ARN + "app")["tags"]
        assert [one["Value"] for one in tags] == ["new", "", ""]

    @pytest.mark.parametrize(
        "tags",
        [
            [{"Key": "", "Value": "x"}],
            [{"Key": "k" * 129, "Value": "x"}],
            [{"Key": "k", "Value": "v" * 257}],
            [{"Key": "aws:mine", "Value": "x"}],
            [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}],
        ],
    )
    def test_tags_that_cannot_be(self, client: Any, tags: list[dict[str, str]]) -> None:
        expected = ("InvalidTagParameterException", "Tag parameters are invalid")
        assert refused(client.create_repository, repositoryName="app", tags=tags) == expected
        client.create_repository(repositoryName="app", tags=[{"Key": "k" * 128, "Value": "v" * 256}])
        assert refused(client.tag_resource, resourceArn=ARN + "app", tags=tags) == expected

    def test_arns_of_other_things(self, client: Any) -> None:
        for arn in ("app", "arn:aws:s3:::app", f"arn:aws:ecr:{REGION}:{ACCOUNT}:image/app", ARN, ARN + "A"):
            assert refused(client.list_tags_for_resource, resourceArn=arn) == (
                "InvalidParameterException",
                "Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'",
            )

    def test_repositories_of_other_registries(self, client: Any) -> None:
        client.create_repository(repositoryName="app")
        assert refused(client.list_tags_for_resource, resourceArn=ARN + "gone") == missing("gone")
        other_region = f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/app"
        assert refused(client.tag_resource, resourceArn=other_region, tags=[]) == missing("app")
        other_account = f"arn:aws:ecr:{REGION}:{OTHER_ACCOUNT}:repository/app"
        assert refused(client.untag_resource, resourceArn=other_account, tagKeys=[])[0] in {
            "RepositoryNotFoundException",
            "AccessDeniedException",
        }


class TestMutability:
    def test_setting_and_filters_are_replaced(self, client: Any) -> None:
        client.create_repository(repositoryName="app")
        filters = [{"filterType": "WILDCARD", "filter": "v*"}, {"filterType": "WILDCARD", "filter": "latest"}]
        changed = client.put_image_tag_mutability(
            repositoryName="app",
            imageTagMutability="MUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=filters,
        )
        changed.pop("ResponseMetadata")
        assert changed == {
            "registryId": ACCOUNT,
            "repositoryName": "app",
            "imageTagMutability": "MUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": filters,
        }
        described = client.describe_repositories()["repositories"][0]
        assert described["imageTagMutabilityExclusionFilters"] == filters
        client.put_image_tag_mutability(repositoryName="app", imageTagMutability="IMMUTABLE")
        described = client.describe_repositories()["repositories"][0]
        assert described["imageTagMutability"] == "IMMUTABLE"
        assert "imageTagMutabilityExclusionFilters" not in described

    @pytest.mark.parametrize(
        ("setting", "filters"),
        [("IMMUTABLE_WITH_EXCLUSION", []), ("MUTABLE_WITH_EXCLUSION", []), ("MUTABLE", ["a"]), ("IMMUTABLE", ["a"])],
    )
    def test_filters_come_with_exclusion_only(self, client: Any, setting: str, filters: list[str]) -> None:
        client.create_repository(repositoryName="app")
        given = [{"filterType": "WILDCARD", "filter": one} for one in filters]
        members = {"imageTagMutabilityExclusionFilters": given} if given else {}
        expected = (
            "InvalidParameterException",
            "Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint:"
            f" 'ImageTagMutabilityExclusionFilters can't be null when imageTagMutability is set as {setting}'",
        )
        call = client.put_image_tag_mutability
        assert refused(call, repositoryName="app", imageTagMutability=setting, **members) == expected
        assert refused(client.create_repository, repositoryName="b2", imageTagMutability=setting, **members) == expected

    def test_a_repository_that_is_missing(self, client: Any) -> None:
        for call, members in (
            (client.put_image_tag_mutability, {"imageTagMutability": "IMMUTABLE"}),
            (client.put_image_scanning_configuration, {"imageScanningConfiguration": {"scanOnPush": True}}),
        ):
            assert refused(call, repositoryName="gone", **members) == missing("gone")


def test_scanning_on_push_is_set(client: Any) -> None:
    client.create_repository(repositoryName="app")
    answer = client.put_image_scanning_configuration(
        repositoryName="app", imageScanningConfiguration={"scanOnPush": True}
    )
    answer.pop("ResponseMetadata")
    assert answer == {
        "registryId": ACCOUNT,
        "repositoryName": "app",
        "imageScanningConfiguration": {"scanOnPush": True},
    }
    assert client.describe_repositories()["repositories"][0]["imageScanningConfiguration"] == {"scanOnPush": True}
