"""Parsing large manifests beside the event loop, which one of megabytes would hold up for a second.

Manifests that programs write have a few kilobytes. Anybody can have a large one in a repository, and pull it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from replicator.core.manifest import parse_manifest

if TYPE_CHECKING:
    from replicator.core.manifest import Manifest

LARGE: Final = 256 * 1024
"""Bytes from which a manifest is parsed in a thread."""


async def parse_beside(content: bytes, content_type: str | None = None) -> Manifest:
    """Parse like `parse_manifest`, and raise like it, without holding up the event loop for a large one."""
    if len(content) <= LARGE:
        return parse_manifest(content, content_type)
    return await asyncio.to_thread(parse_manifest, content, content_type)
