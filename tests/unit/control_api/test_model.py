"""The models that the API checks requests against are botocore's, and safe with hostile strings."""

from __future__ import annotations

import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest

from replicator.control_api.model import SERVICES, Shape, service_model
from tests.ecr_model import MODELS, compact_model, render

if TYPE_CHECKING:
    from botocore.model import ServiceModel

SCANNING_PATTERN = r"^[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*$"


def botocore_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def operations() -> list[Any]:
    return [pytest.param(service, name, id=f"{service}-{name}") for service in SERVICES for name in names(service)]


def names(service: str) -> list[str]:
    return sorted(botocore_model(service).operation_names)


def shapes_with_pattern() -> list[Any]:
    params = []
    for service in SERVICES:
        found: dict[str, Shape] = {}
        for operation in service_model(service).operations.values():
            collect(operation.input, found)
        params += [pytest.param(shape, id=f"{service}-{name}") for name, shape in sorted(found.items())]
    return params


def collect(shape: Shape, found: dict[str, Shape]) -> None:
    if shape.pattern is not None:
        found[shape.name] = shape
    for inner in (*shape.members.values(), *([shape.element] if shape.element else [])):
        collect(inner, found)


@pytest.mark.parametrize("service", SERVICES)
def test_the_committed_model_is_the_one_that_is_generated(service: str) -> None:
    assert (MODELS / f"{service}.json").read_text() == render(compact_model(service)), "run `make ecr-model`"


def test_there_are_as_many_operations_as_the_reference_counts() -> None:
    assert [len(service_model(service).operations) for service in SERVICES] == [62, 23]


@pytest.mark.parametrize("service", SERVICES)
def test_the_target_is_the_one_that_clients_send(service: str) -> None:
    assert service_model(service).target == botocore_model(service).metadata["targetPrefix"]


@pytest.mark.parametrize(("service", "name"), operations())
def test_an_operation_has_the_shapes_and_errors_of_botocore(service: str, name: str) -> None:
    ours, theirs = service_model(service).operations[name], botocore_model(service).operation_model(name)
    assert ours.errors == {shape.name for shape in theirs.error_shapes}
    assert_same(ours.input, theirs.input_shape)
    if theirs.output_shape is None:
        assert not ours.output.members
    else:
        assert_same(ours.output, theirs.output_shape)


def assert_same(ours: Shape, theirs: Any) -> None:
    assert (ours.name, ours.type) == (theirs.name, theirs.type_name)
    assert (ours.minimum, ours.maximum) == (theirs.metadata.get("min"), theirs.metadata.get("max"))
    if ours.type == "structure":
        assert list(ours.members) == list(theirs.members)
        assert ours.required == set(theirs.required_members)
        for member, shape in ours.members.items():
            assert_same(shape, theirs.members[member])
            assert theirs.members[member].serialization.get("name", member) == member
    elif ours.type == "list":
        assert ours.element is not None
        assert_same(ours.element, theirs.member)
    elif ours.type == "map":
        assert ours.element is not None
        assert_same(ours.element, theirs.value)
    else:
        assert list(ours.enum) == (getattr(theirs, "enum", None) or [])
        assert ours.pattern == theirs.metadata.get("pattern")


@pytest.mark.parametrize("shape", shapes_with_pattern())
def test_no_pattern_takes_long_to_refuse_the_longest_strings_that_are_matched(shape: Shape) -> None:
    size = shape.maximum or 1000
    began = time.process_time()
    for unit in (
        "a",
        "0",
        "*",
        "-",
        "a-",
        "a.",
        "a/",
        "a_",
        "a*",
        "-a",
        "arn:aws-a",
        "arn:aws:secretsmanager:",
        ":",
        "é",
    ):
        shape.fits((unit * size)[: size - 1] + "!")
    assert time.process_time() - began < 2.0


def test_the_pattern_that_stands_for_a_slow_one_accepts_the_same_short_strings() -> None:
    shape = next(one.values[0] for one in shapes_with_pattern() if one.values[0].pattern == SCANNING_PATTERN)
    assert isinstance(shape, Shape)
    for length in range(7):
        for letters in itertools.product("a*./", repeat=length):
            text = "".join(letters)
            assert shape.fits(text) == (re.fullmatch(SCANNING_PATTERN, text) is not None), text


@pytest.mark.parametrize("name", ["a--b", "a__b", "a-b/c.d", "a0", "0/1"])
def test_names_of_repositories_fit(name: str) -> None:
    assert service_model("ecr").operations["CreateRepository"].input.members["repositoryName"].fits(name)


@pytest.mark.parametrize("name", ["a..b", "-a", "A", "a/", "/a", "a___b", "a-", "a\n", "á"])
def test_other_names_do_not_fit(name: str) -> None:
    assert not service_model("ecr").operations["CreateRepository"].input.members["repositoryName"].fits(name)
