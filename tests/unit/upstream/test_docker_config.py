"""Docker's config.json and its helpers, with real programs on a PATH of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.errors import UpstreamDenied
from replicator.upstream.credential_helpers import HelperCredentials
from replicator.upstream.credentials import IDENTITY_TOKEN_USER
from replicator.upstream.docker_config import DockerConfigCredentials, registry_keys
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from pathlib import Path

HUB = "https://registry-1.docker.io"
GHCR = "https://ghcr.io"


def pair(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def helper(directory: Path, name: str, body: str) -> dict[str, str]:
    """Put a program on a PATH, and return the environment with it. It has the registry's key as `key`."""
    program = directory / f"docker-credential-{name}"
    source = f"#!{sys.executable} -I\nimport json, os, sys, time\nkey = sys.stdin.read()\n{body}\n"
    program.write_text(source, encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


KNOWS = 'print(json.dumps({"ServerURL": key, "Username": "helped", "Secret": "of " + key}))'
LACKS = 'print("credentials not found in native keychain"); sys.exit(1)'


async def found(directory: Path, config: object, url: str, environ: dict[str, str] | None = None) -> Credentials | None:
    path = directory / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return (await DockerConfigCredentials("hub", path, url, environ or {})()).credentials


def test_docker_hub_has_a_key_of_its_own() -> None:
    assert registry_keys(HUB)[0] == "https://index.docker.io/v1/"
    assert registry_keys("https://ghcr.io") == ("ghcr.io", "https://ghcr.io")
    assert registry_keys("http://127.0.0.1:5000")[0] == "127.0.0.1:5000"


@pytest.mark.parametrize(
    ("key", "url", "known"),
    [
        ("https://index.docker.io/v1/", HUB, True),
        ("docker.io", HUB, True),
        ("ghcr.io", GHCR, True),
        ("https://ghcr.io", GHCR, True),
        ("https://ghcr.io/v2/", GHCR, True),
        ("GHCR.io", GHCR, True),
        ("ghcr.io:8443", GHCR, False),
        ("ghcr.io", "https://ghcr.io:8443", False),
        ("ghcr.io:8443", "https://ghcr.io:8443", True),
        ("ghcr.io/team", GHCR, False),
        ("evil-ghcr.io", GHCR, False),
        ("ghcr.io", HUB, False),
    ],
)
async def test_a_written_password_is_for_its_registry_alone(tmp_path: Path, key: str, url: str, known: bool) -> None:
    config = {"auths": {key: {"auth": pair("me", "a:b")}}}
    assert await found(tmp_path, config, url) == (Credentials("me", "a:b") if known else None)


@pytest.mark.parametrize(
    ("entry", "credentials"),
    [
        ({"username": "me", "password": "secret"}, Credentials("me", "secret")),
        ({"auth": pair("me", "x"), "identitytoken": "refresh"}, Credentials(IDENTITY_TOKEN_USER, "refresh")),
        ({}, None),
        ({"auth": ""}, None),
        ("nonsense", None),
    ],
)
async def test_entries_have_several_forms(tmp_path: Path, entry: object, credentials: Credentials | None) -> None:
    assert await found(tmp_path, {"auths": {"ghcr.io": entry}}, GHCR) == credentials


@pytest.mark.parametrize("auth", ["not base64 at all", base64.b64encode(b"no colon").decode(), "//8="])
async def test_a_broken_password_is_a_denial_that_does_not_show_it(tmp_path: Path, auth: str) -> None:
    with pytest.raises(UpstreamDenied, match=r"holds no credentials under 'ghcr\.io'") as caught:
        await found(tmp_path, {"auths": {"ghcr.io": {"auth": auth}}}, GHCR)
    assert auth not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
async def test_what_is_no_config_is_a_denial(tmp_path: Path, content: str) -> None:
    with pytest.raises(UpstreamDenied, match=r"is not Docker's config\.json"):
        await found(tmp_path, content, GHCR)


async def test_a_file_that_is_not_there_is_a_denial(tmp_path: Path) -> None:
    with pytest.raises(UpstreamDenied, match="cannot be read: No such file"):
        await DockerConfigCredentials("hub", tmp_path / "none.json", GHCR, {})()


async def test_the_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    search = DockerConfigCredentials("hub", path, GHCR, {})
    for password in ("first", "a longer second"):
        path.write_text(json.dumps({"auths": {"ghcr.io": {"auth": pair("me", password)}}}), encoding="utf-8")
        assert (await search()).credentials == Credentials("me", password)


async def test_the_helper_of_a_host_wins_over_the_one_for_all_and_the_file(tmp_path: Path) -> None:
    environ = helper(tmp_path, "all", 'print(json.dumps({"Username": "all", "Secret": "s"}))')
    helper(tmp_path, "one", KNOWS)
    config = {
        "auths": {"ghcr.io": {"auth": pair("me", "written")}},
        "credsStore": "all",
        "credHelpers": {"ghcr.io": "one"},
    }
    assert await found(tmp_path, config, GHCR, environ) == Credentials("helped", "of ghcr.io")
    assert await found(tmp_path, config, HUB, environ) == Credentials("all", "s")


async def test_docker_hub_is_asked_for_by_its_own_key(tmp_path: Path) -> None:
    environ = helper(tmp_path, "all", KNOWS)
    assert await found(tmp_path, {"credsStore": "all"}, HUB, environ) == Credentials(
        "helped", "of https://index.docker.io/v1/"
    )


async def test_what_the_helper_does_not_know_the_file_may(tmp_path: Path) -> None:
    environ = helper(tmp_path, "all", LACKS)
    config: dict[str, Any] = {"credsStore": "all", "auths": {"ghcr.io": {"auth": pair("me", "written")}}}
    assert await found(tmp_path, config, GHCR, environ) == Credentials("me", "written")
    assert await found(tmp_path, config, HUB, environ) is None


async def asked(directory: Path, body: str) -> Credentials | None:
    return (await HelperCredentials("hub", "h", ("ghcr.io",), helper(directory, "h", body))()).credentials


async def test_a_helper_may_give_an_identity_token(tmp_path: Path) -> None:
    body = 'print(json.dumps({"Username": "<token>", "Secret": "refresh"}))'
    assert await asked(tmp_path, body) == Credentials(IDENTITY_TOKEN_USER, "refresh")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('print("locked\\nkeychain"); print("s3cret", file=sys.stderr); sys.exit(3)', "exit code 3: locked keychain"),
        ('print("s3cret is no JSON")', "did not answer with JSON"),
        ('print(json.dumps({"Username": "me", "Secret": ""}))', "did not answer with Username and Secret"),
        ('print(json.dumps(["s3cret"]))', "did not answer with Username and Secret"),
        ('sys.stdout.write("x" * 3_000_000); sys.stdout.flush(); time.sleep(60)', "failed with exit code -9"),
    ],
)
async def test_a_helper_that_fails_is_a_denial_without_secrets(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UpstreamDenied, match=message) as caught:
        await asked(tmp_path, body)
    assert "s3cret" not in str(caught.value)


async def test_a_helper_that_is_not_there_is_a_denial(tmp_path: Path) -> None:
    with pytest.raises(UpstreamDenied, match="no program docker-credential-none on PATH"):
        await HelperCredentials("hub", "none", ("ghcr.io",), {"PATH": str(tmp_path)})()


async def test_a_program_that_cannot_be_started_is_a_denial(tmp_path: Path) -> None:
    (tmp_path / "docker-credential-bad").write_text("#!/no/such/interpreter\n", encoding="utf-8")
    (tmp_path / "docker-credential-bad").chmod(0o755)
    with pytest.raises(UpstreamDenied, match="docker-credential-bad cannot be started"):
        await HelperCredentials("hub", "bad", ("ghcr.io",), {"PATH": str(tmp_path)})()


async def test_a_helper_is_ended_when_nobody_waits_for_it(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    body = f'open({str(marker)!r}, "w").write(str(os.getpid())); time.sleep(60)'
    search = HelperCredentials("hub", "h", ("ghcr.io",), helper(tmp_path, "h", body))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await search()
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
