"""Tags on resources, and the ARNs and encryption of repositories."""

from __future__ import annotations

import pytest

from replicator.core.arns import RepositoryArn, parse_repository_arn, partition_of, repository_arn
from replicator.core.encryption import Encryption, EncryptionType, managed_key
from replicator.core.errors import InvalidInput, InvalidResourceTag, TooManyResourceTags
from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.resource_tags import MAX_KEY, MAX_VALUE, check_keys, checked_tags, with_tags, without_tags

NODE = NodeId(AccountId("123456789012"), Region("eu-west-1"))


class TestTags:
    def test_tags_keep_their_order(self) -> None:
        assert list(checked_tags([("b", "1"), ("a", "2")], 2).items()) == [("b", "1"), ("a", "2")]

    @pytest.mark.parametrize(
        "pairs",
        [
            [("", "x")],
            [("k" * (MAX_KEY + 1), "")],
            [("k", "v" * (MAX_VALUE + 1))],
            [("AWS:team", "")],
            [("k", "1"), ("k", "1")],
        ],
    )
    def test_tags_that_cannot_be(self, pairs: list[tuple[str, str]]) -> None:
        with pytest.raises(InvalidResourceTag, match=r"^Tag parameters are invalid$"):
            checked_tags(pairs, 50)

    def test_the_limit_counts_what_there_is(self) -> None:
        current = {"a": "1", "b": "2"}
        assert with_tags(current, {"b": "3"}, 2) == {"a": "1", "b": "3"}
        with pytest.raises(TooManyResourceTags, match=r"applied to a repository is 2\.$"):
            with_tags(current, {"c": "3"}, 2)
        assert current == {"a": "1", "b": "2"}

    def test_keys_that_are_not_there_are_no_matter(self) -> None:
        assert without_tags({"a": "1", "b": "2"}, ["a", "c"]) == {"b": "2"}
        check_keys(["a", "k" * MAX_KEY])
        with pytest.raises(InvalidResourceTag):
            check_keys(["a", "k" * (MAX_KEY + 1)])


class TestArns:
    @pytest.mark.parametrize("name", ["app", "team/app", "a--b/c.d"])
    def test_an_arn_names_its_repository(self, name: str) -> None:
        arn = repository_arn(NODE, RepositoryName(name))
        assert arn == f"arn:aws:ecr:eu-west-1:123456789012:repository/{name}"
        assert parse_repository_arn(arn) == RepositoryArn(NODE, RepositoryName(name))

    @pytest.mark.parametrize(
        ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
    )
    def test_partitions(self, region: str, partition: str) -> None:
        assert partition_of(region) == partition
        node = NodeId(NODE.account, Region(region))
        assert parse_repository_arn(repository_arn(node, RepositoryName("app"))).registry == node

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "app",
            "arn:aws:ecr:eu-west-1:123456789012:repository/",
            "arn:aws:ecr:eu-west-1:123456789012:repository/A",
            "arn:aws:ecr:eu-west-1:12345:repository/app",
            "arn:aws:s3:eu-west-1:123456789012:repository/app",
            "arn:aws:ecr:eu-west-1:123456789012:repository/app\n",
        ],
    )
    def test_what_names_no_repository(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_repository_arn(text)


class TestEncryption:
    def test_a_key_that_is_named_stays(self) -> None:
        named = Encryption(EncryptionType.KMS, "alias/mine")
        assert named.in_registry(NODE) == named

    def test_without_one_it_is_the_accounts_own(self) -> None:
        found = Encryption(EncryptionType.KMS_DSSE).in_registry(NODE)
        assert found == Encryption(EncryptionType.KMS_DSSE, managed_key(NODE))
        assert managed_key(NODE).startswith("arn:aws:kms:eu-west-1:123456789012:key/")
        assert managed_key(NODE) == managed_key(NODE)
        assert managed_key(NODE) != managed_key(NodeId(NODE.account, Region("eu-west-2")))

    def test_aes256_has_none(self) -> None:
        assert Encryption().in_registry(NODE) == Encryption(EncryptionType.AES256, None)
