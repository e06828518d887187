"""Every error of the core has a code that the models know, and a fault of ours tells nothing of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.control_api.errors import CODES, COMMON, EcrError, answer_to, code_of, of_operation
from replicator.control_api.model import SERVICES, service_model
from replicator.core import errors
from replicator.core.errors import ReplicatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS = (
    errors.ConfigurationError,
    errors.CorruptBlob,
    errors.LoopDetected,
    errors.ShuttingDown,
    errors.StorageError,
    errors.UpstreamError,
)
"""What is not the caller's fault. Operations that ask upstreams have answers of their own to what they say."""


def leaves(kind: type[ReplicatorError] = ReplicatorError) -> Iterator[type[ReplicatorError]]:
    children = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


def codes() -> frozenset[str]:
    operations = (one for service in SERVICES for one in service_model(service).operations.values())
    return frozenset(code for operation in operations for code in operation.errors) | COMMON


@pytest.mark.parametrize("kind", sorted(leaves(), key=str), ids=str)
def test_only_faults_of_ours_are_answered_as_such(kind: type[ReplicatorError]) -> None:
    error = kind("the text")
    answer = answer_to(error)
    if answer.code == "ServerException":
        assert isinstance(error, FAULTS)
        assert (answer.status, str(answer)) == (500, "The server could not process the request.")
    else:
        assert answer.status == 400


@pytest.mark.parametrize("code", sorted(set(CODES.values())))
def test_every_code_is_one_of_a_model_or_of_all_services(code: str) -> None:
    assert code in codes()


def test_a_class_that_is_not_listed_is_answered_as_its_nearest_ancestor() -> None:
    assert code_of(errors.InvalidTag()) == "InvalidParameterException"


def test_too_many_requests_have_ecr_s_text() -> None:
    assert str(answer_to(errors.Throttled("too many requests"))) == "Rate exceeded"


class TestErrorsOfAnOperation:
    operation = service_model("ecr").operations["CreateRepositoryCreationTemplate"]

    @pytest.mark.parametrize("code", ["TemplateAlreadyExistsException", "AccessDeniedException", "ServerException"])
    def test_what_it_has_stays(self, code: str) -> None:
        error = EcrError(code, "text")
        assert of_operation(error, self.operation) is error

    def test_what_it_does_not_have_is_an_invalid_request(self) -> None:
        answer = of_operation(EcrError("TooManyTagsException", "text"), self.operation)
        assert (answer.code, str(answer), answer.status) == ("InvalidParameterException", "text", 400)

    def test_every_operation_has_an_answer_to_an_invalid_request(self) -> None:
        for service in SERVICES:
            for operation in service_model(service).operations.values():
                assert of_operation(EcrError("NoSuchException", "text"), operation).code in operation.errors
