"""Write the compact service models that the ECR API checks requests against: `python -m tests.ecr_model`.

They are botocore's, without its prose: operations, shapes and their constraints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore.session

MODELS = Path(__file__).parent.parent / "replicator" / "control_api" / "service_models"
SERVICES = ("ecr", "ecr-public")
_PLAIN = ("type", "required", "min", "max", "pattern", "enum")
_SHAPES = ("member", "key", "value")

Json = dict[str, Any]


def compact_model(service: str) -> Json:
    """Return the model of a service of the botocore that is installed, without its prose."""
    loader = botocore.session.get_session().get_component("data_loader")
    model = loader.load_service_model(service, "service-2")
    return {
        "version": model["metadata"]["apiVersion"],
        "target": model["metadata"]["targetPrefix"],
        "operations": {name: _operation(one) for name, one in sorted(model["operations"].items())},
        "shapes": {name: _shape(one) for name, one in sorted(model["shapes"].items())},
    }


def render(model: Json) -> str:
    """Return a model as it is committed: one line for each operation and shape."""
    lines = [f'{{"version": {json.dumps(model["version"])}, "target": {json.dumps(model["target"])}']
    for part in ("operations", "shapes"):
        entries = (f"{json.dumps(name)}: {json.dumps(one)}" for name, one in model[part].items())
        lines.append(f', "{part}": {{\n' + ",\n".join(entries) + "}")
    return "\n".join(lines) + "}\n"


def _operation(operation: Json) -> Json:
    found: Json = {side: operation[side]["shape"] for side in ("input", "output") if side in operation}
    return {**found, "errors": [error["shape"] for error in operation.get("errors", ())]}


def _shape(shape: Json) -> Json:
    found: Json = {key: shape[key] for key in _PLAIN if key in shape}
    found |= {key: shape[key]["shape"] for key in _SHAPES if key in shape}
    if "members" in shape:
        found["members"] = {name: member["shape"] for name, member in shape["members"].items()}
    return found


def main() -> None:
    """Write the models."""
    MODELS.mkdir(exist_ok=True)
    for service in SERVICES:
        (MODELS / f"{service}.json").write_text(render(compact_model(service)))


if __name__ == "__main__":
    main()
