"""The registries that conformance is asked of: real stores, real sockets, one process of the product's own code.

They live for the whole session and every test works in repositories of its own, as strangers do on a shared registry.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from replicator.core.rate_limit import RateLimit
from replicator.core.rights import Grant, Right
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.users import User
from tests.conformance.scene import Registries
from tests.support.clock import FakeClock
from tests.support.single_node import NODE, Users, serve_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.wire_client import WireClient

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registries(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registries]:
    clock = FakeClock()
    users = Users([User.with_password("reader", "secret", [Grant(frozenset({Right.PULL}))])])
    sparse = RegistrySettings(NODE, sparse_indexes=True, sparse_images=True)
    folder = tmp_path_factory.mktemp("registries")
    names = ("open", "strict", "guarded", "throttled")
    for name in names:
        (folder / name).mkdir()
    async with (
        serve_node(folder / "open", settings=sparse) as open_,
        serve_node(folder / "strict") as strict,
        serve_node(folder / "guarded", users=users) as guarded,
        serve_node(folder / "throttled", clock, rate_limit=RateLimit(1 / 3600, 1, clock)) as throttled,
    ):
        yield Registries(open_, strict, guarded, throttled)


@pytest_asyncio.fixture(loop_scope="session")
async def client(registries: Registries) -> AsyncIterator[WireClient]:
    """A client of the open registry."""
    async with registries.open.client() as client:
        yield client


@pytest.fixture
def repository() -> str:
    """A name nobody has used yet."""
    return f"conformance/test-{next(_numbers)}"


@pytest.fixture
def other() -> str:
    """Another one."""
    return f"conformance/other-{next(_numbers)}"
