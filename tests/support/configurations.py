"""Pieces of configuration documents."""

from __future__ import annotations

from typing import Any

US = {"account": "111122223333", "region": "us-east-1"}
EU = {"account": "111122223333", "region": "eu-west-1"}
AP = {"account": "444455556666", "region": "ap-southeast-1"}


def node(identity: dict[str, str], port: int, **more: Any) -> dict[str, Any]:
    """Return a node that listens on a port of loopback."""
    return {**identity, "listen": f"127.0.0.1:{port}", **more}


def peer(identity: dict[str, str]) -> dict[str, Any]:
    """Return a node that runs elsewhere, with the secret of the pair where it is another account's."""
    secret = {} if identity["account"] == US["account"] else {"secret": {"env": "PEER"}}
    return {**identity, "url": f"https://{identity['region']}.example.com", **secret}
