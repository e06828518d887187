"""The wire of the ECR API: requests, dispatch, answers and errors, asked by boto3 and by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ecr_node import ecr_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ecr_node import EcrNodes


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path_factory.mktemp("wire")) as nodes:
        yield nodes


class TestDispatch:
    def test_an_operation_that_the_model_does_not_have_is_not_known(self, ecr: EcrNodes) -> None:
        reply = ecr.signed("MakeCoffee")
        assert (reply.status, reply.error[0]) == (404, "UnknownOperationException")
        assert reply.headers["x-amzn-RequestId"]
        assert reply.headers["Content-Type"] == "application/x-amz-json-1.1"

    def test_another_path_than_the_root_is_no_operation(self, ecr: EcrNodes) -> None:
        assert ecr.send("GET", "/healthz").status == 200
        assert ecr.send("GET", "/").status == 404
        assert ecr.send("GET", "/v2/").status == 200
