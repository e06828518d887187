"""The service models of ECR and ECR Public: which operations there are, and the shapes of what they take and give.

The files beside this module are made of botocore's models and compared with them by a test. Here they become objects
whose patterns can be matched against anything: one that is not safe with long hostile strings is replaced by another
that accepts the same.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICES = ("ecr", "ecr-public")

_SAFE_PATTERNS = {
    # Each letter could be either the optional one of a group or one of those that follow it.
    r"^[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*$": r"[a-z0-9*]+(?:[._\-/][a-z0-9*]+)*",
}
"""Patterns of a model that take exponential time, with what is matched instead."""


@dataclass(slots=True)
class Shape:
    """What a value must be. Those of structures, lists and maps refer to each other, so they are joined after all."""

    name: str
    type: str
    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    members: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None
    matcher: re.Pattern[str] | None = None

    def fits(self, text: str) -> bool:
        """Tell whether a string as a whole has the shape's pattern."""
        return self.matcher is None or self.matcher.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation takes and gives, and the errors that are its own."""

    name: str
    input: Shape
    output: Shape
    errors: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """One service. `target` stands before the operation's name in `X-Amz-Target`."""

    service: str
    target: str
    operations: Mapping[str, Operation]


_NOTHING = Shape("Nothing", "structure")


@functools.cache
def service_model(service: str) -> ServiceModel:
    """Return the model of one of `SERVICES`."""
    text = resources.files("replicator.control_api").joinpath("service_models", f"{service}.json").read_text("utf-8")
    document = json.loads(text)
    described = cast("Mapping[str, Mapping[str, object]]", document["shapes"])
    shapes = {name: _shape(name, one) for name, one in described.items()}
    for name, one in described.items():
        _join(shapes[name], one, shapes)
    operations = {
        name: Operation(
            name,
            shapes.get(one.get("input"), _NOTHING),
            shapes.get(one.get("output"), _NOTHING),
            frozenset(one["errors"]),
        )
        for name, one in document["operations"].items()
    }
    return ServiceModel(service, document["target"], operations)


def _shape(name: str, described: Mapping[str, object]) -> Shape:
    pattern = cast("str | None", described.get("pattern"))
    return Shape(
        name=name,
        type=cast("str", described["type"]),
        minimum=cast("int | None", described.get("min")),
        maximum=cast("int | None", described.get("max")),
        pattern=pattern,
        enum=tuple(cast("list[str]", described.get("enum", []))),
        required=frozenset(cast("list[str]", described.get("required", []))),
        matcher=None if pattern is None else re.compile(_SAFE_PATTERNS.get(pattern, pattern), re.ASCII),
    )


def _join(shape: Shape, described: Mapping[str, object], shapes: Mapping[str, Shape]) -> None:
    members = cast("Mapping[str, str]", described.get("members", {}))
    shape.members = {name: shapes[of] for name, of in members.items()}
    element = described.get("member", described.get("value"))
    shape.element = None if element is None else shapes[cast("str", element)]
