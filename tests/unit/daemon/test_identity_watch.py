"""Identities and users follow the file: within a minute by the clock, as a whole, and never a file that is broken.

A secret that is gone is no broken file: it takes those away who had it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from replicator.config.loader import load_settings
from replicator.core.rights import Grant, Right
from replicator.daemon.identity_watch import INTERVAL, IdentityWatch
from replicator.daemon.secrets import SecretStore
from replicator.registry.identities import IdentityDirectory
from replicator.registry_api.users import User, UserDirectory
from replicator.telemetry.redaction import Redactor
from tests.support.clock import FakeClock
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEV = "arn:aws:iam::123456789012:user/dev"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}]}
NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "ecr:*", "Resource": "*"}]}


class Scene:
    """A configuration with one identity, whose secret and policy are files, and its watch."""

    def __init__(self, directory: Path, **more: object) -> None:
        self.directory = directory
        self.file = directory / "replicator.yaml"
        self.clock = FakeClock()
        self.redactor = Redactor()
        self.write_secret("the-first-secret-access-key")
        self.write_policy(ALLOW)
        self.write(**more)
        settings = load_settings(self.file, {})
        secrets = SecretStore({})
        self.directory_of_keys = IdentityDirectory(secrets.access_keys(settings))
        self.users = {
            one.id: UserDirectory(secrets.users(one), one.anonymous_grants()) for one in settings.nodes if one.auth
        }
        self.watch = IdentityWatch(
            self.file, settings, secrets, self.directory_of_keys, self.redactor, self.clock, self.users
        )

    def write(self, **more: Any) -> None:
        keys = [{"id": "AKIDONE", "secret": {"file": "secret"}}, {"id": "AKIDTWO", "secret": {"file": "secret"}}]
        document = {
            "version": 1,
            "nodes": [{"account": "123456789012", "region": "us-east-1", "listen": "127.0.0.1:0"}],
            "identities": [{"arn": DEV, "access_keys": keys, "policy_files": ["policy.json"]}],
            **more,
        }
        self.file.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))

    def write_secret(self, text: str) -> None:
        (self.directory / "secret").write_text(text)

    def write_policy(self, document: object) -> None:
        (self.directory / "policy.json").write_text(json.dumps(document))

    def secret(self, key: str = "AKIDONE") -> str | None:
        found = self.directory_of_keys.find_key(key)
        return None if found is None else found.secret

    async def a_look(self) -> None:
        """Let a minute pass at the watch's own pace."""
        await self.clock.sleepers()
        self.clock.advance(INTERVAL)
        await self.clock.sleepers()  # it waits for the next one


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    found = Scene(tmp_path)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(found.watch.run())
        yield found
        running.cancel()


def test_the_file_is_looked_at_often_enough() -> None:
    assert INTERVAL <= 60


async def test_a_secret_that_changed_is_known_within_a_minute(scene: Scene) -> None:
    assert scene.secret() == "the-first-secret-access-key"
    scene.write_secret("the-second-secret-access-key")
    await scene.a_look()
    assert scene.secret() == "the-second-secret-access-key"
    assert "second" not in scene.redactor.redact_known("the-second-secret-access-key")


async def test_a_key_that_was_removed_is_nobody_s(scene: Scene) -> None:
    scene.write(identities=[{"arn": DEV, "access_keys": [{"id": "AKIDTWO", "secret": {"file": "secret"}}]}])
    await scene.a_look()
    assert (scene.secret("AKIDONE"), scene.secret("AKIDTWO")) == (None, "the-first-secret-access-key")


async def test_a_policy_that_changed_is_in_force(scene: Scene) -> None:
    scene.write_policy(NOTHING)
    await scene.a_look()
    key = scene.directory_of_keys.find_key("AKIDONE")
    assert key is not None
    [policy] = key.identity.policies
    assert [str(one.effect) for one in policy.statements] == ["Deny"]


async def test_whoever_asks_does_not_wait(scene: Scene) -> None:
    await scene.clock.sleepers()
    scene.write(identities=None)
    scene.watch.ask()
    await asyncio.to_thread(eventually, lambda: len(scene.directory_of_keys) == 0, "the keys to be gone")


async def test_without_a_change_nothing_is_replaced(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.file.write_text(scene.file.read_text() + "# a remark\n")
    await scene.watch.look()
    assert scene.directory_of_keys.version == 0


@pytest.mark.parametrize("broken", ["file", "policy", "other"])
async def test_a_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    match broken:
        case "file":
            scene.file.write_text("version: [")
        case "policy":
            scene.write_policy({})
        case _:
            scene.write(identities=None, colour="blue")
    with caplog.at_level(logging.ERROR):
        await scene.watch.look()
        await scene.watch.look()
    assert scene.secret() == "the-first-secret-access-key"
    assert scene.directory_of_keys.version == 0
    said = [one for one in caplog.records if "identities are kept" in one.getMessage()]
    assert len(said) == 1  # not once a minute


async def test_other_changes_need_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path)
    scene.write(shutdown_grace="5s", log={"level": "debug"})
    with caplog.at_level(logging.WARNING):
        await scene.watch.look()
        await scene.watch.look()
    said = [one.getMessage() for one in caplog.records if "a restart is needed" in one.getMessage()]
    assert len(said) == 1
    assert "log, shutdown_grace" in said[0]
    assert scene.directory_of_keys.version == 0


async def test_a_node_without_identities_does_not_become_one_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path, identities=None)
    scene.write()
    with caplog.at_level(logging.WARNING):
        await scene.watch.look()
    assert len(scene.directory_of_keys) == 0
    assert any("a restart is needed" in one.getMessage() and "identities" in one.getMessage() for one in caplog.records)


@pytest.mark.parametrize("how", ["missing", "empty", "short"])
async def test_a_secret_that_is_gone_takes_its_key_away_and_no_other(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own").write_text("a-secret-of-its-own-key")
    keys = [{"id": "AKIDONE", "secret": {"file": "secret"}}, {"id": "AKIDTWO", "secret": {"file": "own"}}]
    other = {"arn": DEV.replace("dev", "other"), "access_keys": [{"id": "AKIDOTHER", "secret": {"file": "own"}}]}
    dev = {"arn": DEV, "access_keys": keys, "policy_files": ["policy.json"]}
    scene = Scene(tmp_path, identities=[dev, other])
    if how == "missing":
        (tmp_path / "secret").unlink()
    else:
        scene.write_secret("" if how == "empty" else "guess")
    with caplog.at_level(logging.WARNING):
        await scene.watch.look()
        await scene.watch.look()
    assert [scene.secret(key) is None for key in ("AKIDONE", "AKIDTWO", "AKIDOTHER")] == [True, False, False]
    said = [one.getMessage() for one in caplog.records if "a secret cannot be used" in one.getMessage()]
    assert len(said) == 1
    assert "access key AKIDONE" in said[0]
    assert "guess" not in said[0]
    scene.write_secret("the-next-secret-access-key")
    await scene.watch.look()
    assert scene.secret() == "the-next-secret-access-key"


async def test_a_session_token_that_is_gone_takes_its_key_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("session")
    key = {"id": "AKIDONE", "secret": {"file": "secret"}, "session_token": {"file": "token"}}
    scene = Scene(tmp_path, identities=[{"arn": DEV, "access_keys": [key], "policy_files": ["policy.json"]}])
    assert scene.secret() is not None
    (tmp_path / "token").unlink()
    await scene.watch.look()
    assert scene.secret() is None


class TestUsers:
    """Users and grants of a node that started with some."""

    @pytest.fixture
    def scene(self, tmp_path: Path) -> Scene:
        (tmp_path / "password").write_text("first")
        (tmp_path / "other").write_text("other")
        return Scene(tmp_path, **self.auth(["pull"]))

    def auth(self, actions: list[str], **more: object) -> dict[str, Any]:
        grants = [{"actions": actions}]
        users = [
            {"name": "dev", "password": {"file": "password"}, "grants": grants},
            {"name": "ops", "password": {"file": "other"}, "grants": grants},
        ]
        node = {"account": "123456789012", "region": "us-east-1", "listen": "127.0.0.1:0"}
        return {"nodes": [{**node, "auth": {"users": users, **more}}]}

    def found(self, scene: Scene, name: str = "dev") -> User | None:
        [directory] = scene.users.values()
        return directory.find(name)

    async def test_a_password_that_changed(self, scene: Scene, tmp_path: Path) -> None:
        before, other = self.found(scene), self.found(scene, "ops")
        (tmp_path / "password").write_text("second")
        await scene.watch.look()
        assert self.found(scene) not in {before, None}
        assert self.found(scene, "ops") == other
        assert "second" not in scene.redactor.redact_known("second")

    async def test_a_password_that_is_gone(
        self, scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "password").unlink()
        with caplog.at_level(logging.WARNING):
            await scene.watch.look()
        assert (self.found(scene), self.found(scene, "ops") is None) == (None, False)
        assert any("password of user dev" in one.getMessage() for one in caplog.records)

    async def test_a_grant_that_changed_needs_no_restart(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        [directory] = scene.users.values()
        assert not directory.anonymous.policies
        scene.write(**self.auth(["pull", "push"], anonymous=[{"actions": ["pull"]}]))
        with caplog.at_level(logging.WARNING):
            await scene.watch.look()
            await scene.watch.look()
        user = self.found(scene)
        assert user is not None
        assert user.grants == (Grant(frozenset({Right.PULL, Right.PUSH})),)
        assert directory.anonymous.policies
        assert directory.version == 1
        assert not [one for one in caplog.records if "a restart is needed" in one.getMessage()]

    async def test_without_auth_nobody_is_a_user_and_the_node_stays_closed(self, scene: Scene) -> None:
        scene.write()
        await scene.watch.look()
        assert self.found(scene) is None

    async def test_what_else_changes_in_a_node_needs_a_restart(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        document = self.auth(["push"])
        document["nodes"][0]["quotas"] = {"repositories": 1}
        scene.write(**document)
        with caplog.at_level(logging.WARNING):
            await scene.watch.look()
        assert any("a restart is needed" in one.getMessage() for one in caplog.records)
