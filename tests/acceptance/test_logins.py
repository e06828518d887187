"""Logging in with AWS credentials through other programs' own protocols: docker's, the kubelet's and the command's."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call
from tests.support.layouts import container_image, write_oci_layout
from tests.support.skopeo import Skopeo, SkopeoFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("logins")]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
KEY, SECRET = "AKIDEXAMPLE", "a-secret-access-key-of-this-test"
PASSWORD = "a-password-of-this-test"  # noqa: S105 - made up
ACCOUNT = "123456789012"
PROVIDER_API = "credentialprovider.kubelet.k8s.io/v1"


def command(
    program: str, *arguments: str, environ: dict[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own programs
        [str(BIN / program), *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env=environ,
    )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    user = {"name": "dev", "password": {"env": "PASSWORD"}, "grants": [{"actions": ["pull", "push"]}]}
    document = {
        "identities": [
            {
                "arn": f"arn:aws:iam::{ACCOUNT}:user/dev",
                "administrator": True,
                "access_keys": [{"id": KEY, "secret": {"env": "SECRET"}}],
            }
        ],
        "nodes": [node(account=ACCOUNT, auth={"users": [user]})],
    }
    directory = tmp_path_factory.mktemp("daemon")
    with Daemon(directory, document, {"SECRET": SECRET, "PASSWORD": PASSWORD}) as running:
        yield running


@pytest.fixture
def environ(daemon: Daemon, tmp_path: Path) -> dict[str, str]:
    """Return what a user's shell says: AWS credentials, and a home of the test's own."""
    (tmp_path / "credentials.yaml").write_text(
        yaml.safe_dump({"registries": {daemon.address(): {"region": "us-east-1", "endpoint_url": daemon.url("")}}})
    )
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "REPLICATOR_CREDENTIALS": str(tmp_path / "credentials.yaml"),
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
    }


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = tmp_path_factory.mktemp("layout") / "layout"
    write_oci_layout(layout, {"app": container_image([{"greeting": b"hello"}])})
    return f"oci:{layout}:app"


def copy(daemon: Daemon, image: str, repository: str, environ: dict[str, str], auth_file: Path) -> None:
    done = subprocess.run(  # noqa: S603 - a client
        [  # noqa: S607 - from PATH, as users start it
            "skopeo", "copy", "--dest-tls-verify=false", "--authfile", str(auth_file),
            image, f"docker://{daemon.address()}/{repository}:1.0",
        ],
        capture_output=True, text=True, check=False, timeout=50, env=environ,
    )  # fmt: skip
    if done.returncode:
        raise SkopeoFailed(done.stderr)


def modes(*paths: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_skopeo_pushes_with_the_credential_helper(
    daemon: Daemon, environ: dict[str, str], image: str, tmp_path: Path, skopeo: Skopeo
) -> None:
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"auths": {}}))
    with pytest.raises(SkopeoFailed):
        copy(daemon, image, "team/helped", environ, auth_file)
    auth_file.write_text(json.dumps({"credHelpers": {daemon.address(): "replicator"}}))
    copy(daemon, image, "team/helped", environ, auth_file)
    kept = tmp_path / ".cache" / "replicator" / "tokens.json"
    assert modes(kept) == {0o600}
    assert SECRET not in kept.read_text()
    before = kept.read_text()
    copy(daemon, image, "team/helped-again", environ, auth_file)
    assert kept.read_text() == before  # a token that was fetched before
    with pytest.raises(SkopeoFailed):
        copy(daemon, image, "team/helped", {**environ, "AWS_SECRET_ACCESS_KEY": "another one"}, auth_file)


def helper(environ: dict[str, str], action: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return command("docker-credential-replicator", action, environ=environ, given=given)


def test_the_helper_speaks_docker_s_protocol(daemon: Daemon, environ: dict[str, str], tmp_path: Path) -> None:
    listed = helper(environ, "list")
    assert json.loads(listed.stdout) == {daemon.address(): "AWS"}
    for key in (daemon.address(), f"http://{daemon.address()}/v2/\n"):
        got = helper(environ, "get", key)
        assert got.returncode == 0, got
        answer = json.loads(got.stdout)
        assert sorted(answer) == ["Secret", "ServerURL", "Username"]
        assert (answer["ServerURL"], answer["Username"]) == (key.strip(), "AWS")
        pair = base64.b64encode(f"AWS:{answer['Secret']}".encode()).decode()
        assert call("GET", daemon.url("/v2/"), headers={"Authorization": f"Basic {pair}"}).status == 200
    kept = tmp_path / ".cache" / "replicator" / "tokens.json"
    assert json.loads(kept.read_text())
    assert helper(environ, "erase", daemon.address()).returncode == 0
    assert json.loads(kept.read_text()) == {}


@pytest.mark.parametrize(
    ("action", "given", "said"),
    [
        ("get", "registry.example.com", "credentials not found in native keychain"),
        ("get", "", "no credentials server URL"),
        ("erase", "", "no credentials server URL"),
        ("store", '{"ServerURL": "x", "Username": "y", "Secret": "z-secret"}', "keeps no passwords"),
        ("other", "", "usage: "),
    ],
)
def test_the_helper_says_why_not(environ: dict[str, str], action: str, given: str, said: str) -> None:
    done = helper(environ, action, given)
    assert done.returncode == 1
    assert said in done.stdout
    assert "z-secret" not in done.stdout + done.stderr


def test_the_helper_sends_no_credentials_in_clear(environ: dict[str, str]) -> None:
    path = Path(environ["REPLICATOR_CREDENTIALS"])
    path.write_text("registries: {r.example.com: {region: us-east-1, endpoint_url: http://r.example.com}}\n")
    done = helper(environ, "get", "r.example.com")
    assert (done.returncode, "in clear" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registries: [", "not YAML"),
        ("registries: {r: {}}", "region"),
        ("registries: {r: {region: us-east-1, endpoint: x}}", "endpoint"),
        ("registry: {}", "registry"),
    ],
)
def test_settings_of_the_helper_that_are_wrong_are_explained(environ: dict[str, str], text: str, said: str) -> None:
    Path(environ["REPLICATOR_CREDENTIALS"]).write_text(text)
    done = helper(environ, "list")
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def provider(environ: dict[str, str], request: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = request if isinstance(request, str) else json.dumps(request)
    return command("replicator-credential-provider", *arguments, environ=environ, given=given)


def request_for(image: str, **more: object) -> dict[str, Any]:
    return {"apiVersion": PROVIDER_API, "kind": "CredentialProviderRequest", "image": image, **more}


def test_the_kubelet_gets_a_token(daemon: Daemon, environ: dict[str, str]) -> None:
    arguments = ("--config", environ.pop("REPLICATOR_CREDENTIALS"))
    done = provider(environ, request_for(f"{daemon.address()}/team/app:1.0"), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    response = json.loads(done.stdout)
    auth = response.pop("auth")
    assert response == {
        "apiVersion": PROVIDER_API,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": "21600s",
    }
    assert list(auth) == [daemon.address()]
    assert sorted(auth[daemon.address()]) == ["password", "username"]
    pair = base64.b64encode("{username}:{password}".format(**auth[daemon.address()]).encode()).decode()
    assert call("GET", daemon.url("/v2/"), headers={"Authorization": f"Basic {pair}"}).status == 200


def test_the_kubelet_pulls_other_images_without(environ: dict[str, str]) -> None:
    done = provider(
        environ, request_for("docker.io/library/alpine:3", serviceAccountToken="", serviceAccountAnnotations={})
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["auth"] == {}


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "{",
        "[]",
        {"apiVersion": "credentialprovider.kubelet.k8s.io/v1alpha1", "kind": "CredentialProviderRequest", "image": "x"},
        {"apiVersion": PROVIDER_API, "kind": "Other", "image": "x"},
        {"apiVersion": PROVIDER_API, "kind": "CredentialProviderRequest"},
    ],
)
def test_the_kubelet_is_told_what_is_wrong(environ: dict[str, str], request_: object) -> None:
    done = provider(environ, request_)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("replicator-credential-provider: expected ")


def test_the_example_for_the_kubelet_is_one() -> None:
    document = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "credential-provider.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("kubelet.config.k8s.io/v1", "CredentialProviderConfig")
    [one] = document["providers"]
    assert (BIN / one["name"]).exists()
    assert one["apiVersion"] == PROVIDER_API
    assert {"matchImages", "defaultCacheDuration"} <= set(one)


def login(
    daemon: Daemon, environ: dict[str, str], *arguments: str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return command("replicator", "login", "--endpoint-url", daemon.url(""), *arguments, environ=environ, given=given)


def test_login_keeps_a_token_for_clients(daemon: Daemon, environ: dict[str, str], image: str, tmp_path: Path) -> None:
    auth_file = tmp_path / ".docker" / "config.json"
    auth_file.parent.mkdir()
    auth_file.write_text(json.dumps({"auths": {"other.example.com": {"auth": "eDp5"}}, "HttpHeaders": {"a": "b"}}))
    done = login(daemon, environ, "--region", "us-east-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"logged in to {daemon.address()} as AWS until ")
    kept = json.loads(auth_file.read_text())
    assert kept["auths"]["other.example.com"] == {"auth": "eDp5"}
    assert kept["HttpHeaders"] == {"a": "b"}
    token = kept["auths"][daemon.address()]["auth"]
    password = base64.b64decode(token).decode().removeprefix("AWS:")
    assert token not in done.stdout
    assert password not in done.stdout
    assert modes(auth_file) == {0o600}
    copy(daemon, image, "team/logged-in", environ, auth_file)


def test_login_by_a_profile(daemon: Daemon, environ: dict[str, str], tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del environ[name]
    done = login(daemon, environ)
    assert done.returncode == 1
    assert "there are no AWS credentials" in done.stderr
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[dev]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile dev]\nregion = us-east-1\n")
    done = login(daemon, environ, "--profile", "dev", "--auth-file", str(tmp_path / "auth.json"))
    assert done.returncode == 0, done.stderr
    assert daemon.address() in json.loads((tmp_path / "auth.json").read_text())["auths"]


def test_login_with_a_password(daemon: Daemon, environ: dict[str, str], tmp_path: Path) -> None:
    environ["REGISTRY_AUTH_FILE"] = str(tmp_path / "auth.json")
    wrong = login(daemon, environ, "--username", "dev", "--password-stdin", given="wrong-password\n")
    assert wrong.returncode == 1
    assert "does not accept the user or the password" in wrong.stderr
    assert "wrong-password" not in wrong.stdout + wrong.stderr
    assert not (tmp_path / "auth.json").exists()
    done = login(daemon, environ, "--username", "dev", "--password-stdin", given=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    kept = json.loads((tmp_path / "auth.json").read_text())["auths"][daemon.address()]["auth"]
    assert base64.b64decode(kept).decode() == f"dev:{PASSWORD}"


def test_login_hands_over_to_the_helper_that_keeps_logins(
    daemon: Daemon, environ: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "docker-credential-keeper"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = store ] && cat > {tmp_path}/stored\n')
    program.chmod(0o755)
    environ["PATH"] = f"{program.parent}:{environ['PATH']}"
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"credsStore": "keeper"}))
    done = login(daemon, environ, "--region", "us-east-1", "--auth-file", str(auth_file))
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "stored").read_text())
    assert (stored["ServerURL"], stored["Username"]) == (daemon.address(), "AWS")
    assert json.loads(auth_file.read_text()) == {"credsStore": "keeper"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--region", "eu-west-1"), "gives no token"),
        (("--username", "dev"), "together"),
        (("--password-stdin",), "together"),
        (("--region", "us-east-1", "--registry", "http://x"), "--registry"),
        (("--region", "us-east-1", "--registry", "127.0.0.1:9"), "cannot be reached"),
    ],
)
def test_login_says_why_not(daemon: Daemon, environ: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = login(daemon, environ, *arguments)
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_nothing_of_it_is_in_the_daemon_s_log(daemon: Daemon) -> None:
    assert SECRET not in daemon.output()
    assert PASSWORD not in daemon.output()
    assert "eyJ" not in daemon.output()


class TestOperatorCommands:
    """What operators ask of nodes with identities, with nothing but AWS credentials."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("status",),
            ("cache", "ls"),
            ("events", "dead"),
            ("backfill", "list"),
            ("sync", "--dry-run"),
            ("policy", "explain", f"arn:aws:iam::{ACCOUNT}:user/dev", "ecr:PutImage", "team/app"),
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_aws_credentials_of_the_environment(
        self, daemon: Daemon, environ: dict[str, str], arguments: tuple[str, ...]
    ) -> None:
        done = command("replicator", *arguments, "--config", str(daemon.config), environ=with_secrets(environ))
        assert (done.returncode, SECRET in done.stdout + done.stderr) == (0, False), done.stderr

    def test_a_profile(self, daemon: Daemon, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "aws").write_text(f"[ops]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        chosen = without_keys(environ) | {
            "AWS_PROFILE": "ops",
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws"),
        }
        done = command("replicator", "status", "--config", str(daemon.config), environ=with_secrets(chosen))
        assert (done.returncode, "read and write" in done.stdout) == (0, True), done.stdout

    def test_keys_that_nobody_has(self, daemon: Daemon, environ: dict[str, str]) -> None:
        wrong = with_secrets(environ | {"AWS_ACCESS_KEY_ID": "AKIDNOBODY"})
        done = command("replicator", "status", "--config", str(daemon.config), environ=wrong)
        assert (done.returncode, "it answered UnrecognizedClientException" in done.stdout) == (1, True), done.stdout
        done = command("replicator", "cache", "ls", "--config", str(daemon.config), environ=wrong)
        assert (done.returncode, "it answered UnrecognizedClientException" in done.stderr) == (1, True), done.stderr

    def test_without_credentials_it_is_said_what_would_do(self, daemon: Daemon, environ: dict[str, str]) -> None:
        nobody = with_secrets(without_keys(environ))
        done = command("replicator", "status", "--config", str(daemon.config), environ=nobody)
        assert done.returncode == 1
        assert "or AWS credentials of one of its identities" in done.stdout

    def test_a_user_still_goes_with_a_password(self, daemon: Daemon, environ: dict[str, str]) -> None:
        named = with_secrets(environ) | {"REPLICATOR_PASSWORD": PASSWORD}
        done = command("replicator", "status", "--user", "dev", "--config", str(daemon.config), environ=named)
        assert done.returncode == 0, done.stdout


def with_secrets(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment in which the daemon's configuration can be read."""
    return {**environ, "SECRET": SECRET, "PASSWORD": PASSWORD}


def without_keys(environ: dict[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environ.items() if name not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    }
