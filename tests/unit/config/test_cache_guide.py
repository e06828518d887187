"""The example in the guide of the cache is a configuration that is right."""

from __future__ import annotations

from pathlib import Path

import yaml

from replicator.config.loader import check_settings

GUIDE = Path(__file__).parents[3] / "docs" / "cache.md"


def test_the_example_of_the_guide_is_right(tmp_path: Path) -> None:
    example = GUIDE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    document = {"version": 1, "storage_root": str(tmp_path / "data"), **yaml.safe_load(example)}
    (tmp_path / "corp.pem").touch()
    (tmp_path / "example.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    problems = check_settings(tmp_path / "example.yaml", {"DOCKER_HUB_TOKEN": "a-secret-of-this-test"})
    assert [str(one) for one in problems if not one.key.endswith("ca_file")] == []
