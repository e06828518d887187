"""The wire of the ECR API: dispatch, bodies, errors, registries of other accounts, signatures and rates."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.control_api import request as wire
from replicator.control_api.model import SERVICES, service_model
from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, REGION, SECRET, TARGETS, ecr_nodes, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

DEV = f"arn:aws:iam::{ACCOUNT}:user/dev"
IDENTITIES = [
    {"arn": DEV, "access_keys": [{"id": KEY, "secret": {"insecure": SECRET}}], "administrator": True},
    {
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/build/job-1",
        "access_keys": [
            {"id": "ASIAEXAMPLE", "secret": {"insecure": "temporary"}, "session_token": {"insecure": "session"}}
        ],
        "administrator": True,
    },
    {
        "arn": f"arn:aws:iam::{ACCOUNT}:user/reader",
        "access_keys": [{"id": "AKIDREADER", "secret": {"insecure": "reader"}}],
        "policies": [
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "ecr:Describe*",
                        "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shown/*",
                    }
                ],
            }
        ],
    },
]
ALL_OPERATIONS = [(service, name) for service in SERVICES for name in sorted(service_model(service).operations)]


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    """An open node of each of two accounts in one region."""
    nodes = [node(), node(account=OTHER_ACCOUNT)]
    with ecr_nodes(tmp_path_factory.mktemp("wire"), nodes=nodes) as running:
        yield running


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    """A node that knows identities."""
    with ecr_nodes(tmp_path_factory.mktemp("signed"), {"identities": IDENTITIES}) as running:
        yield running


class TestDispatch:
    @pytest.mark.parametrize(("service", "operation"), ALL_OPERATIONS)
    def test_every_operation_of_the_model_has_an_answer_of_the_model(
        self, ecr: EcrNodes, service: str, operation: str
    ) -> None:
        reply = ecr.signed(operation, service=service)
        if reply.status != 200:
            code = reply.error[0]
            assert code in service_model(service).operations[operation].errors | {"InvalidParameterException"}, reply

    @pytest.mark.parametrize(
        "target",
        [
            f"{TARGETS['ecr']}.MakeCoffee",
            f"{TARGETS['ecr']}.",
            f"{TARGETS['ecr']}",
            f"{TARGETS['ecr']}.describeRepositories",
            "DynamoDB_20120810.ListTables",
            "",
            "." * 500,
        ],
    )
    def test_an_operation_that_no_model_has_is_not_known(self, ecr: EcrNodes, target: str) -> None:
        reply = ecr.signed("", target=target)
        assert (reply.status, reply.error[0]) == (404, "UnknownOperationException")
        assert reply.headers["x-amzn-RequestId"]
        assert reply.headers["Content-Type"] == "application/x-amz-json-1.1"

    def test_an_operation_of_the_other_service_is_not_known(self, ecr: EcrNodes) -> None:
        reply = ecr.signed("ListImages", service="ecr-public")
        assert (reply.status, reply.error[0]) == (404, "UnknownOperationException")

    def test_a_request_without_a_target_names_no_operation(self, ecr: EcrNodes) -> None:
        assert ecr.send("POST", "/", b"{}").error[0] == "UnknownOperationException"

    def test_the_rest_of_the_node_is_where_it_was(self, ecr: EcrNodes) -> None:
        assert ecr.send("GET", "/healthz").status == 200
        assert ecr.send("GET", "/").status == 404
        assert ecr.send("GET", "/v2/").status == 200

    def test_requests_are_counted_by_operation(self, ecr: EcrNodes) -> None:
        ecr.signed("DescribeRegistry")
        metrics = ecr.send("GET", "/metrics").body.decode()
        assert 'method="POST",node="123456789012/us-east-1",route="ecr_DescribeRegistry"' in metrics

    def test_an_operation_cannot_make_a_series_of_its_own(self, ecr: EcrNodes) -> None:
        ecr.signed("Unheard")
        assert "Unheard" not in ecr.send("GET", "/metrics").body.decode()


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b'"text"',
            b"null",
            b"{'a':1}",
            b'{"maxResults": NaN}',
            b'{"maxResults": Infinity}',
            b'{"maxResults": ' + b"9" * 5000 + b"}",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"a":' * 20_000,
        ],
    )
    def test_what_is_no_json_object_cannot_be_read(self, ecr: EcrNodes, body: bytes) -> None:
        reply = ecr.signed("DescribeRepositories", body=body)
        assert (reply.status, reply.error[0]) == (400, "SerializationException")

    @pytest.mark.parametrize("part", [b"[],", b"{},", b"1,"])
    def test_a_body_of_small_parts_is_not_unpacked(self, ecr: EcrNodes, part: bytes) -> None:
        body = b'{"repositoryName":"team/app","x":[' + part * 500_000 + b"1]}"
        reply = ecr.signed("UploadLayerPart", body=body)
        assert (reply.status, reply.error) == (400, ("SerializationException", "Too many elements"))

    def test_an_empty_body_is_an_empty_object(self, ecr: EcrNodes) -> None:
        assert ecr.signed("DescribeRegistry", body=b"").status == 200

    @pytest.mark.parametrize(("operation", "size"), [("DescribeRepositories", 2**20), ("UploadLayerPart", 29 * 2**20)])
    def test_a_body_that_is_too_large_is_refused_as_soon_as_it_is_announced(
        self, ecr: EcrNodes, operation: str, size: int
    ) -> None:
        answer = exchange(
            ecr,
            f"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {TARGETS['ecr']}.{operation}\r\n"
            f"Content-Length: {size + 1}\r\n\r\n".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"__type":"RequestEntityTooLargeException"' in answer

    def test_a_chunked_body_that_is_too_large_is_refused(self, ecr: EcrNodes) -> None:
        head = (
            f"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {TARGETS['ecr']}.DescribeRepositories\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        answer = exchange(ecr, head.encode() + (b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 3)
        assert answer.startswith(b"HTTP/1.1 413")

    def test_a_client_that_stalls_is_given_up(self, ecr: EcrNodes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire, "STALL_TIMEOUT", 0.05)
        answer = exchange(
            ecr,
            f"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {TARGETS['ecr']}.DescribeRegistry\r\n"
            "Content-Length: 2\r\n\r\n{".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"Connection: close" in answer

    def test_a_client_that_leaves_is_nothing_to_answer(self, ecr: EcrNodes) -> None:
        with socket.create_connection(address(ecr), timeout=10) as connection:
            connection.sendall(
                f"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {TARGETS['ecr']}.DescribeRegistry\r\n"
                "Content-Length: 2\r\n\r\n{".encode()
            )
        assert ecr.signed("DescribeRegistry").status == 200


def address(ecr: EcrNodes) -> tuple[str, int]:
    host, _, port = ecr.host().partition(":")
    return host, int(port)


def exchange(ecr: EcrNodes, data: bytes) -> bytes:
    """Send bytes, and return the answer, which ends with its document."""
    with socket.create_connection(address(ecr), timeout=10) as connection:
        connection.sendall(data)
        found = b""
        while not found.endswith(b"}"):
            part = connection.recv(65536)
            assert part, found
            found += part
        return found


class TestRegistries:
    def test_a_node_serves_all_registries_of_its_region(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        client.create_repository(repositoryName="ours")
        client.create_repository(repositoryName="theirs", registryId=OTHER_ACCOUNT)
        assert names(client.describe_repositories()) == ["ours"]
        assert names(client.describe_repositories(registryId=OTHER_ACCOUNT)) == ["theirs"]

    def test_the_registry_of_an_account_that_is_not_here_has_no_repositories(self, ecr: EcrNodes) -> None:
        with pytest.raises(ClientError) as caught:
            ecr.client().delete_repository(repositoryName="ours", registryId="0" * 12)
        assert caught.value.response["Error"] == {
            "Code": "RepositoryNotFoundException",
            "Message": "The repository with name 'ours' does not exist in the registry with id '000000000000'",
        }

    def test_the_registry_of_an_account_that_is_not_here_does_not_exist(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        assert client.describe_repositories(registryId="0" * 12)["repositories"] == []
        with pytest.raises(client.exceptions.RepositoryNotFoundException):
            client.describe_repositories(registryId="0" * 12, repositoryNames=["ours"])
        with pytest.raises(ClientError) as caught:
            client.describe_pull_through_cache_rules(registryId="0" * 12)
        assert caught.value.response["Error"] == {
            "Code": "InvalidParameterException",
            "Message": "The registry with id '000000000000' does not exist in region us-east-1",
        }


def names(answer: dict[str, Any]) -> list[str]:
    return [one["repositoryName"] for one in answer["repositories"]]


class TestErrors:
    def test_an_error_of_the_model_is_an_exception_of_the_client(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        with pytest.raises(client.exceptions.RepositoryNotFoundException) as caught:
            client.describe_repositories(repositoryNames=["missing"])
        assert caught.value.response["message"] == (
            "The repository with name 'missing' does not exist in the registry with id '123456789012'"
        )
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert caught.value.response["ResponseMetadata"]["RequestId"]

    def test_what_the_client_does_not_check_is_checked_here(self, ecr: EcrNodes) -> None:
        with pytest.raises(ClientError, match="failed to satisfy constraint: 'Member must have value less than or"):
            ecr.client().describe_repositories(maxResults=1001)


class TestSignatures:
    def test_the_right_key_gets_in(self, signed: EcrNodes) -> None:
        assert signed.client().describe_registry()["registryId"] == ACCOUNT
        session = signed.client(key="ASIAEXAMPLE", secret="temporary", token="session")
        assert session.describe_registry()["registryId"] == ACCOUNT

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            ({"secret": "wrong"}, "InvalidSignatureException", "The request signature we calculated does not match"),
            ({"key": "AKIDNOBODY"}, "UnrecognizedClientException", "The security token included in the request is inv"),
            ({"token": "x"}, "UnrecognizedClientException", "The security token included in the request is invalid."),
            ({"region": "eu-west-1"}, "InvalidSignatureException", "Credential should be scoped to a valid region."),
            ({"scope": "s3"}, "InvalidSignatureException", "Credential should be scoped to correct service: 'ecr'."),
        ],
    )
    def test_another_one_is_refused(self, signed: EcrNodes, options: dict[str, str], code: str, message: str) -> None:
        reply = signed.signed("DescribeRegistry", **options)
        assert (reply.status, reply.error[0]) == (403, code)
        assert reply.error[1].startswith(message)
        assert signed.signed("CreateRepository", {"repositoryName": "not/made"}, **options).status == 403
        with pytest.raises(ClientError, match="RepositoryNotFoundException"):
            signed.client().describe_repositories(repositoryNames=["not/made"])

    def test_a_request_without_a_signature_is_refused(self, signed: EcrNodes) -> None:
        reply = signed.send("POST", "/", b"{}", {"X-Amz-Target": f"{TARGETS['ecr']}.DescribeRegistry"})
        assert (reply.status, *reply.error) == (
            403,
            "MissingAuthenticationTokenException",
            "Missing Authentication Token",
        )

    def test_the_signature_is_looked_at_before_the_operation(self, signed: EcrNodes) -> None:
        assert signed.signed("MakeCoffee", secret="wrong").error[0] == "InvalidSignatureException"
        assert signed.signed("MakeCoffee").error[0] == "UnknownOperationException"

    def test_nobody_sends_a_body_without_a_key(self, signed: EcrNodes) -> None:
        answer = exchange(
            signed,
            f"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {TARGETS['ecr']}.UploadLayerPart\r\n"
            "Content-Length: 20000000\r\n\r\n".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"Connection: close" in answer


class TestPermissions:
    def test_a_caller_does_what_its_policy_allows(self, signed: EcrNodes) -> None:
        signed.client().create_repository(repositoryName="shown/app")
        reader = signed.client(key="AKIDREADER", secret="reader")
        assert names(reader.describe_repositories(repositoryNames=["shown/app"])) == ["shown/app"]

    @pytest.mark.parametrize(
        ("operation", "members", "resource"),
        [
            (
                "DeleteRepository",
                {"repositoryName": "shown/app"},
                f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shown/app",
            ),
            (
                "DescribeRepositories",
                {"repositoryNames": ["shown/app", "hidden"]},
                f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/hidden",
            ),
            (
                "ListTagsForResource",
                {"resourceArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shown/app"},
                f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shown/app",
            ),
            ("DescribeRepositories", {}, "*"),
            ("PutRegistryPolicy", {"policyText": "{}"}, "*"),
            ("GetAuthorizationToken", {}, "*"),
        ],
    )
    def test_and_nothing_else(
        self, signed: EcrNodes, operation: str, members: dict[str, object], resource: str
    ) -> None:
        reply = signed.signed(operation, members, key="AKIDREADER", secret="reader")
        assert (reply.status, *reply.error) == (
            400,
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: ecr:{operation} on resource:"
            f" {resource} because no identity-based policy allows the ecr:{operation} action",
        )

    def test_a_malformed_request_is_malformed_to_everybody(self, signed: EcrNodes) -> None:
        reply = signed.signed("DeleteRepository", {"repositoryName": "A"}, key="AKIDREADER", secret="reader")
        assert reply.error[0] == "InvalidParameterException"


class TestTime:
    def test_a_signature_expires_after_15_minutes(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as running:
            stamp = running.now.strftime("%Y%m%dT%H%M%SZ")
            prepared = running.prepared("DescribeRegistry")
            assert running.send("POST", "/", *prepared).status == 200
            running.advance(15 * 60)
            assert running.send("POST", "/", *prepared).status == 200
            running.advance(1)
            reply = running.send("POST", "/", *prepared)
            assert (reply.status, reply.error[0]) == (403, "InvalidSignatureException")
            assert reply.error[1].startswith(f"Signature expired: {stamp} is now earlier than ")
            assert running.client().describe_registry()["registryId"] == ACCOUNT


class TestRates:
    def test_a_caller_that_asks_too_often_is_throttled(self, tmp_path: Path) -> None:
        limits: dict[str, Any] = {"limits": {"requests_per_second": 1, "request_burst": 2}}
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=[node(**limits)]) as running:
            replies = [running.signed("DescribeRegistry") for _ in range(3)]
            assert [reply.status for reply in replies] == [200, 200, 400]
            assert replies[-1].error == ("ThrottlingException", "Rate exceeded")
            running.advance(1)
            assert running.signed("DescribeRegistry").status == 200

    def test_keys_are_not_guessed_faster(self, tmp_path: Path) -> None:
        limits: dict[str, Any] = {"limits": {"requests_per_second": 1, "request_burst": 2}}
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=[node(**limits)]) as running:
            codes = [running.signed("DescribeRegistry", secret=f"guess {n}").error[0] for n in range(3)]
            assert codes == ["InvalidSignatureException", "InvalidSignatureException", "ThrottlingException"]


def test_answers_are_never_more_than_their_text(ecr: EcrNodes) -> None:
    reply = ecr.signed("DescribeRepositories", {"nextToken": "nonsense"})
    assert reply.error[0] == "InvalidParameterException"
    assert set(json.loads(reply.body)) == {"__type", "message"}
