"""The ECR API is asked anything: it never fails by itself, never shows its insides, and an error changes nothing.

REPLICATOR_FUZZ sets the number of requests; `make fuzz-ecr` sends 20,000.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.aws_shapes import COMMON_ERRORS, check_document
from tests.support.ecr_node import JSON_TYPE, TARGETS, ecr_nodes
from tests.support.ecr_requests import REPOSITORIES, documents
from tests.support.images import build_image
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ecr_node import EcrNodes

REQUESTS = int(os.environ.get("REPLICATOR_FUZZ", "400"))
IMAGE = build_image((b"fuzz",))
DIGESTS: tuple[str, ...] = (IMAGE.digest, *IMAGE.blobs)
_REFILL_EVERY = 25
_OF_ENGINES = ("lifecycle_previews", "lifecycle_preview_images", "backfills", "backfill_images", "jobs")
"""Tables in which the node's engines go on with what an earlier request has started."""
_MODELS = {service: botocore.session.get_session().get_service_model(service) for service in TARGETS}


@dataclass(repr=False)
class Scene:
    """A node with some content, asked over one connection."""

    ecr: EcrNodes
    connection: http.client.HTTPConnection
    database: sqlite3.Connection
    asked: int = 0
    version: int = -1
    seen: dict[str, list[str]] = field(default_factory=dict)

    def ask(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Send one request; content that earlier ones have deleted comes back now and then."""
        if self.asked % _REFILL_EVERY == 0:
            self.fill()
        self.asked += 1
        self.has_changed()
        self.connection.request("POST", "/", body, {"Content-Type": JSON_TYPE, "X-Amz-Target": target})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def fill(self) -> None:
        """Have repositories with an image."""
        client = self.ecr.client()
        for name in REPOSITORIES[:-1]:
            with contextlib.suppress(client.exceptions.RepositoryAlreadyExistsException):
                client.create_repository(repositoryName=name)
        for name in REPOSITORIES[:2]:
            self.ecr.run(push(int(self.ecr.host().rpartition(":")[2]), name))

    def has_changed(self) -> bool:
        """Tell whether anything in the node's database is not as it was when this was asked last."""
        version = self.database.execute("PRAGMA data_version").fetchone()[0]
        if version == self.version:
            return False
        before, self.version, self.seen = self.seen, version, self._contents()
        return self.seen != before

    def _contents(self) -> dict[str, list[str]]:
        tables = [row[0] for row in self.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [table for table in tables if table not in _OF_ENGINES]
        return {table: sorted(map(repr, self.database.execute(f"SELECT * FROM {table}"))) for table in kept}  # noqa: S608 - of the schema


async def push(port: int, repository: str) -> None:
    async with WireClient(port) as client:
        for content in IMAGE.blobs.values():
            await client.push_blob(repository, content)
        await client.push_manifest(repository, "v1", IMAGE.manifest)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ecr_nodes(tmp_path_factory.mktemp("fuzz")) as ecr:
        path = ecr.directory / "data" / "123456789012" / "us-east-1" / "metadata.db"
        connection = http.client.HTTPConnection(ecr.host(), timeout=30)
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield Scene(ecr, connection, database)
        connection.close()


def check(scene: Scene, service: str, operation: str, body: bytes) -> None:
    status, answer = scene.ask(f"{TARGETS[service]}.{operation}", body)
    shown = f"{service} {operation} {body[:2000]!r} -> {status} {answer[:2000]!r}"
    assert status < 500, shown
    assert b"Traceback" not in answer, shown
    document: Any = json.loads(answer)
    model = _MODELS[service].operation_model(operation)
    if status == 200:
        check_document(model, document)
        return
    code = document["__type"]
    assert isinstance(document["message"], str), shown
    assert code in {one.name for one in model.error_shapes} | COMMON_ERRORS, shown
    assert not scene.has_changed(), shown


limits = settings(
    max_examples=REQUESTS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.mark.timeout(60 + REQUESTS // 5)
@limits
@given(asked=documents(DIGESTS))
def test_requests_made_from_the_model(scene: Scene, asked: tuple[str, str, Any]) -> None:
    service, operation, document = asked
    check(scene, service, operation, json.dumps(document).encode())


@pytest.mark.timeout(60 + REQUESTS // 5)
@settings(parent=limits, max_examples=max(50, REQUESTS // 10))
@given(asked=documents(DIGESTS), data=st.data())
def test_requests_whose_bytes_were_changed(scene: Scene, asked: tuple[str, str, Any], data: st.DataObject) -> None:
    service, operation, document = asked
    body = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        end = min(len(body), start + data.draw(st.integers(0, 3)))
        body[start:end] = data.draw(st.binary(max_size=4))
    check(scene, service, operation, bytes(body))
