"""The configuration that newcomers start with, `configs/three-regions.yaml`, fit for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).parents[2] / "configs" / "three-regions.yaml"

US, EU, AP = "us-east-1", "eu-west-1", "ap-southeast-1"


def three_regions(upstream: str | None = None) -> dict[str, Any]:
    """Return the document with ports that the system chooses; `upstream` stands for the registry of prefix `local`.

    Nothing is read through from another region, so that what a region serves has arrived there.
    """
    document: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    del document["storage_root"]
    for settings in document["nodes"]:
        settings["listen"] = "127.0.0.1:0"
        settings["replication"] = {**settings.get("replication", {}), "read_through": {"enabled": False}}
    for found in document["upstreams"]:
        if found["name"] == "local" and upstream is not None:
            found["url"] = upstream
    # Anchors of the file are one object here; a test may change one node only.
    independent: dict[str, Any] = yaml.safe_load(yaml.safe_dump(document, sort_keys=False))
    return independent
