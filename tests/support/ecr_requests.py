"""Requests to the ECR API made from the service model: valid ones, and ones that are wrong in some place.

Names, tags and digests mostly come from a few that exist, so that much of what is made gets past the first check and
meets what other requests have left behind.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from replicator.control_api.model import SERVICES, service_model
from replicator.control_api.pages import token_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.model import Shape

ACCOUNT = "123456789012"
REPOSITORIES = ("fuzz/a", "fuzz/b", "fuzz/c", "fuzz/c/d", "missing")
TAGS = ("v1", "v2", "latest", "missing")
_ARN = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/"
_ZEROES = "00000000-0000-0000-0000-000000000000"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": ["ecr:BatchGetImage"]}],
}
_REGISTRY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::210987654321:root"},
            "Action": ["ecr:ReplicateImage"],
            "Resource": _ARN + "*",
        }
    ],
}
_LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "few are kept",
            "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 2},
            "action": {"type": "expire"},
        }
    ]
}

_TEXTS: Mapping[str, tuple[str, ...]] = {
    "RegistryId": (ACCOUNT, ACCOUNT, "210987654321", "000000000000"),
    "RegistryIdOrAlias": (ACCOUNT, "210987654321", "nobody"),
    "ImageTag": TAGS,
    "Arn": (_ARN + "fuzz/a", _ARN + "missing", "arn:aws:ecr-public::123456789012:repository/fuzz/a", "arn:nonsense"),
    "UploadId": (_ZEROES, "11111111-1111-1111-1111-111111111111"),
    "ReplicationBackfillId": (_ZEROES,),
    "Region": ("us-east-1", "eu-west-1", "mars-north-1"),
    "RepositoryPolicyText": (json.dumps(_POLICY), "{}", "[]", '{"Statement": []}', "no json"),
    "RegistryPolicyText": (json.dumps(_REGISTRY_POLICY), json.dumps(_POLICY), "{}", "no json"),
    "LifecyclePolicyText": (json.dumps(_LIFECYCLE), json.dumps(_LIFECYCLE) + " " * 100, "{" + " " * 100, "[" * 120),
    "LifecyclePolicyTextForRepositoryCreationTemplate": (json.dumps(_LIFECYCLE), "", "{}"),
    "Prefix": ("ROOT", "fuzz", "fuzz/", "team/x"),
    "PullThroughCacheRuleRepositoryPrefix": ("hub", "hub/", "quay", "x/y"),
    "Url": ("registry-1.docker.io", "quay.io", "public.ecr.aws", "example.com", "127.0.0.1", "https://ghcr.io/x"),
    "AccountSettingName": ("BLOB_MOUNTING", "REGISTRY_POLICY_SCOPE", "BASIC_SCAN_TYPE_VERSION", "other"),
    "AccountSettingValue": ("ENABLED", "DISABLED", "V1", "V2", "AWS_NATIVE", "other"),
    "PrincipalArn": (f"arn:aws:iam::{ACCOUNT}:role/scanner", f"arn:aws:iam::{ACCOUNT}:user/x"),
    "SigningProfileArn": (f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/ours",),
    "CredentialArn": (f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:ecr-pullthroughcache/hub-x1",),
    "CustomRoleArn": (f"arn:aws:iam::{ACCOUNT}:role/made", "nonsense", ""),
    "KmsKey": ("alias/aws/ecr", f"arn:aws:kms:us-east-1:{ACCOUNT}:key/x"),
    "KmsKeyForRepositoryCreationTemplate": ("", f"arn:aws:kms:us-east-1:{ACCOUNT}:key/x"),
    "MediaType": ("application/vnd.oci.image.manifest.v1+json", "application/json", "x"),
    "RepositoryFilterValue": ("fuzz", "fuzz/", "x/y"),
    "ScanningRepositoryFilterValue": ("*", "fuzz/*", "a"),
    "SigningRepositoryFilterValue": ("*", "fuzz/*"),
    "ImageTagMutabilityExclusionFilterValue": ("v*", "*", "latest", "*a*b*c*"),
    "NextToken": (
        token_of("fuzz/a"),
        token_of("0"),
        token_of("3"),
        token_of("x y"),
        token_of("99999999999"),
        "bad",
        "",
    ),
    "TagKey": ("team", "aws:x", "", "k" * 128, "k" * 129),
    "TagValue": ("a", "", "v" * 257),
}
"""Values of shapes, by name: some of them are in place, and some are not."""

_UGLY: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    2**70,
    "",
    "\0",
    "a\0b",
    "\ud800",
    "é" * 300,
    "💥",
    "x" * 5000,
    "../../etc",
    "%s%n",
    "'; drop table repositories; --",
    "{}",
    [],
    [None],
    [[]],
    ["x"] * 101,
    {},
    {"x": 1},
)


def documents(digests: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str, Any]]:
    """Return a strategy of services, operations and what they are asked; `digests` exist."""
    operations = [(service, name) for service in SERVICES for name in sorted(service_model(service).operations)]
    return st.sampled_from(operations).flatmap(
        lambda one: st.tuples(st.just(one[0]), st.just(one[1]), _asked(*one, digests))
    )


def _asked(service: str, operation: str, digests: tuple[str, ...]) -> st.SearchStrategy[Any]:
    valid = _values(service_model(service).operations[operation].input, digests)
    return st.one_of(valid, valid, st.builds(_spoilt, valid, st.randoms(use_true_random=False), st.sampled_from(_UGLY)))


def _spoilt(document: Any, random: Any, ugly: Any) -> Any:
    """Return a document with something ugly in one place, or without what was there."""
    places = list(_places(document))
    if not places:
        return ugly if random.random() < 0.3 else {"unknown": ugly}
    holder, key = random.choice(places)
    if random.random() < 0.15 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = ugly
    return document


def _places(document: Any) -> Any:
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(entries):
        yield document, key
        yield from _places(value)


def _values(shape: Shape, digests: tuple[str, ...]) -> st.SearchStrategy[Any]:
    if shape.type == "structure":
        required = {name: _values(one, digests) for name, one in shape.members.items() if name in shape.required}
        optional = {name: _values(one, digests) for name, one in shape.members.items() if name not in shape.required}
        return st.fixed_dictionaries(required, optional=optional)
    if shape.type == "list":
        assert shape.element is not None
        least = min(shape.minimum or 0, 2)
        return st.lists(
            _values(shape.element, digests), min_size=least, max_size=max(least, min(shape.maximum or 3, 3))
        )
    if shape.type == "map":
        return st.just({})
    return _plain(shape, digests)


def _plain(shape: Shape, digests: tuple[str, ...]) -> st.SearchStrategy[Any]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    if shape.type == "boolean":
        return st.booleans()
    if shape.type in {"integer", "long"}:
        return st.one_of(
            st.integers(shape.minimum or 0, min(shape.maximum or 100, 100)), st.sampled_from([1, 1000, 10**9])
        )
    if shape.type == "blob":
        return st.binary(max_size=64).map(lambda one: base64.b64encode(one).decode())
    return _text(shape, digests)


def _text(shape: Shape, digests: tuple[str, ...]) -> st.SearchStrategy[str]:
    if "RepositoryName" in shape.name:
        return st.sampled_from(REPOSITORIES)
    if shape.name in {"ImageDigest", "LayerDigest", "BatchedOperationLayerDigest"}:
        return st.sampled_from((*digests, "sha256:" + "0" * 64, "sha256:abc", "nonsense"))
    if shape.name == "ImageManifest":
        return st.sampled_from(("{}", "[]", "no json", json.dumps({"schemaVersion": 2, "manifests": [], "layers": 5})))
    if shape.name in _TEXTS:
        return st.sampled_from(_TEXTS[shape.name])
    return st.text(max_size=30)
