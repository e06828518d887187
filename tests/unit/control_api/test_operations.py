"""Which operations are answered, and what the documentation says of that."""

from __future__ import annotations

import pytest

from replicator.control_api.errors import not_supported
from replicator.control_api.model import SERVICES, service_model
from replicator.control_api.operations import HANDLERS
from tests import ecr_compatibility


@pytest.mark.parametrize("service", SERVICES)
def test_only_operations_of_the_model_are_answered(service: str) -> None:
    assert set(HANDLERS[service]) <= set(service_model(service).operations)


def test_every_operation_of_ecr_is_answered() -> None:
    assert set(HANDLERS["ecr"]) == set(service_model("ecr").operations)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_not_supported_is_refused_with_an_error_of_the_model(service: str) -> None:
    for operation in service_model(service).operations.values():
        assert not_supported(operation).code in operation.errors, operation.name


def test_the_page_on_compatibility_says_what_is_so() -> None:
    assert ecr_compatibility.PAGE.read_text() == ecr_compatibility.render(), "run `make ecr-compatibility`"


def test_the_page_says_nothing_of_what_is_not_there() -> None:
    assert list(ecr_compatibility.mistakes()) == []
