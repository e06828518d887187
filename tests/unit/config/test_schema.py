from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from replicator.config.schema import describe_keys, json_schema, keys_of

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_editors_accept_the_configurations_that_come_with_the_program(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


@pytest.mark.parametrize(
    "data",
    [
        {"version": 2, "nodes": []},
        {"version": 1, "nodes": [], "colour": "blue"},
        {"version": 1, "nodes": [{"account": "1", "region": "x", "listen": "a:1"}]},
        {"version": 1, "nodes": [], "shutdown_grace": "5"},
    ],
)
def test_editors_refuse_what_the_loader_refuses(data: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())


def test_every_key_has_a_description_and_a_kind() -> None:
    for key in describe_keys():
        assert key.description, key
        assert key.kind, key


def test_defaults_are_written_as_in_the_file() -> None:
    defaults = {key.key: key.default for key in describe_keys()}
    assert defaults["shutdown_grace"] == "30s"
    assert defaults["nodes[].cache.rules[].stale_while_revalidate"] == "7d"
    assert defaults["nodes[].limits.max_manifest_size"] == "8MiB"
    assert defaults["log.access_log"] is True


def test_the_keys_of_a_section_depend_on_its_kind() -> None:
    def blobs(kind: str) -> tuple[str, ...]:
        data = {"nodes": [{"storage": {"blobs": {"kind": kind}}}]}
        return keys_of(("nodes", 0, "storage", "blobs"), data)

    assert blobs("filesystem") == ("kind", "path")
    assert "bucket" in blobs("s3")
    assert keys_of((), {})[0] == "version"
    assert keys_of(("peer_secret",), {"peer_secret": {}}) == ("env", "file")
    assert keys_of(("nowhere", 5), {}) == ()
