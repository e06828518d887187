"""What is kept of public repositories, on SQLite and PostgreSQL: which there are, their catalog data and logos."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.core.digest import digest_of
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.storage.metadata import public_logos, repositories, repository_removal, tags
from replicator.storage.metadata.repositories import Repository

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
PUBLIC = RepositoryName("alias/app")


async def create(database: Database, name: str, *, public: bool = False) -> None:
    made = Repository(RepositoryName(name), 1.0, "api", MutabilityRule(), is_public=public)
    await database.write(partial(repositories.create, made))


async def test_lists_of_names_are_those_of_private_ones(database: Database) -> None:
    await create(database, PUBLIC, public=True)
    await create(database, "b")
    assert await database.read(repositories.names_after("", 9)) == ["b"]


async def test_whether_something_private_is_below_a_prefix(database: Database) -> None:
    for name in ("alias", "alias-2/app", "alia/s", "aliasing"):
        await create(database, name)
    await create(database, PUBLIC, public=True)
    assert not await database.read(repositories.has_private_below("alias/"))
    await create(database, "alias/zz/private")
    assert await database.read(repositories.has_private_below("alias/"))


async def test_whether_there_is_a_public_one(database: Database) -> None:
    await create(database, "a")
    assert await database.read(repositories.find_public()) is None
    await create(database, PUBLIC, public=True)
    assert await database.read(repositories.find_public()) == PUBLIC


async def test_catalog_data_is_replaced(database: Database) -> None:
    await create(database, PUBLIC, public=True)
    for text in ('{"description": "é"}', None):
        await database.write(partial(repositories.set_catalog, PUBLIC, text))
        found = await database.read(repositories.find(PUBLIC))
        assert found is not None
        assert found.catalog == text


async def test_a_repository_has_one_logo_until_it_goes(database: Database) -> None:
    first, second = b"\x00first", b"second\xff"
    await create(database, PUBLIC, public=True)
    for content in (first, second):
        await database.write(partial(public_logos.put, PUBLIC, digest_of(content), content))
        assert await database.read(public_logos.find(PUBLIC, digest_of(content))) == content
    assert await database.read(public_logos.find(PUBLIC, digest_of(first))) is None
    await database.write(partial(repository_removal.remove, PUBLIC))
    assert await database.read(public_logos.find(PUBLIC, digest_of(second))) is None


async def test_a_logo_is_forgotten(database: Database) -> None:
    await database.write(partial(public_logos.put, PUBLIC, digest_of(b"x"), b"x"))
    await database.write(partial(public_logos.delete, PUBLIC))
    assert await database.read(public_logos.find(PUBLIC, digest_of(b"x"))) is None


async def test_tags_with_what_they_point_to_and_since_when(database: Database) -> None:
    one, two = digest_of(b"1"), digest_of(b"2")
    for tag, digest, at in (("b", one, 1.0), ("a", two, 2.0), ("gone", None, 3.0), ("c", one, 4.0)):
        await database.write(partial(tags.put, PUBLIC, Tag(tag), digest, NODE, at))
    assert await database.read(tags.pointing_after(PUBLIC, "", 2)) == [("a", two, 2.0), ("b", one, 1.0)]
    assert await database.read(tags.pointing_after(PUBLIC, "b", 9)) == [("c", one, 4.0)]
