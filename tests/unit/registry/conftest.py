"""A destination of replication with real stores."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from replicator.registry.settings import RegistrySettings
from tests.support.replica_scene import OpenScene, Scene, scene_of
from tests.support.single_node import NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path) as scene:
        yield scene


@pytest.fixture
async def open_scene(tmp_path: Path) -> AsyncIterator[OpenScene]:
    """Open a scene with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def opened(**settings: object) -> Scene:
            made = RegistrySettings(NODE, **settings)  # type: ignore[arg-type] # the test names real ones
            return await stack.enter_async_context(scene_of(tmp_path, made))

        yield opened
