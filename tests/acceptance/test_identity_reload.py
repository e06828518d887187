"""A running daemon follows its identities and users: what was taken away ends for signatures, tokens and bearers."""

from __future__ import annotations

import base64
import json
import signal
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow]

ACCOUNT = "123456789012"
DEV, OPERATOR = (f"arn:aws:iam::{ACCOUNT}:user/{name}" for name in ("dev", "operator"))
FIRST, SECOND = "the-first-secret-access-key", "the-second-secret-access-key"


def policy(*actions: str) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


class Scene:
    """A daemon with two principals, one of which a test changes."""

    def __init__(self, directory: Path) -> None:
        self.secret, self.policy = directory / "secret", directory / "policy.json"
        self.secret.write_text(FIRST)
        self.policy.write_text(json.dumps(policy("ecr:*")))
        dev = {
            "arn": DEV,
            "access_keys": [{"id": "AKIDDEV", "secret": {"file": str(self.secret)}}],
            "policy_files": [str(self.policy)],
        }
        operator = {
            "arn": OPERATOR,
            "administrator": True,
            "access_keys": [{"id": "AKIDOPERATOR", "secret": {"env": "OPERATOR_SECRET"}}],
        }
        document = {"identities": [dev, operator], "nodes": [node(account=ACCOUNT)]}
        self.daemon = Daemon(directory / "daemon", document, {"OPERATOR_SECRET": FIRST})

    def client(self, key: str = "AKIDDEV", secret: str = FIRST) -> Any:
        return boto3.session.Session().client(
            "ecr",
            region_name="us-east-1",
            endpoint_url=self.daemon.url(""),
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def login(self, key: str = "AKIDDEV", secret: str = FIRST) -> str:
        client = self.client(key, secret)
        try:
            [data] = client.get_authorization_token()["authorizationData"]
        finally:
            client.close()
        return str(data["authorizationToken"])

    def error(self, key: str = "AKIDDEV", secret: str = FIRST) -> str:
        """Return the code with which a signed request is refused."""
        with pytest.raises(ClientError) as failure:
            self.login(key, secret)
        return str(failure.value.response["Error"]["Code"])

    def status(self, token: str, scheme: str = "Basic", path: str = "/v2/", method: str = "GET") -> int:
        return call(method, self.daemon.url(path), headers={"Authorization": f"{scheme} {token}"}).status

    def bearer(self, token: str) -> str:
        answer = call("GET", self.daemon.url("/v2/token"), headers={"Authorization": f"Basic {token}"})
        return str(json.loads(answer.body)["token"])

    def reload(self, event: str) -> None:
        """Ask for a look (SIGHUP), and return when the daemon has said something of it."""
        before = self.said(event)
        self.daemon.process.signal(signal.SIGHUP)
        eventually(lambda: self.said(event) > before, f"the daemon to say {event!r}", within=15.0)

    def said(self, event: str) -> int:
        return sum(one.get("event") == event for one in self.daemon.events())


REPLACED = "identities were replaced"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    with found.daemon:
        yield found


def test_a_rotated_secret_ends_what_was_made_with_the_old_one(scene: Scene) -> None:
    token, operators = scene.login(), scene.login("AKIDOPERATOR")
    bearer = scene.bearer(token)
    assert (scene.status(token), scene.status(bearer, "Bearer")) == (200, 200)
    scene.secret.write_text(SECOND)
    scene.reload(REPLACED)
    assert (scene.status(token), scene.status(bearer, "Bearer"), scene.status(operators)) == (401, 401, 200)
    assert scene.error() == "InvalidSignatureException"
    assert scene.status(scene.login(secret=SECOND)) == 200
    assert FIRST not in scene.daemon.output()
    assert SECOND not in scene.daemon.output()


def test_a_removed_key_is_nobody_s(scene: Scene) -> None:
    token = scene.login()
    assert scene.status(token) == 200
    scene.daemon.document["identities"] = scene.daemon.document["identities"][1:]
    scene.daemon.write_config()
    scene.reload(REPLACED)
    assert scene.status(token) == 401
    assert scene.error() == "UnrecognizedClientException"


def test_a_changed_policy_holds_for_tokens_of_before(scene: Scene) -> None:
    token = scene.login()
    uploads = "/v2/team/app/blobs/uploads/"
    assert scene.status(token, path=uploads, method="POST") == 202
    scene.policy.write_text(json.dumps(policy("ecr:BatchGetImage")))
    scene.reload(REPLACED)
    assert scene.status(token, path=uploads, method="POST") == 403
    assert scene.error() == "AccessDeniedException"


def test_a_broken_file_changes_nothing_and_is_told(scene: Scene) -> None:
    token = scene.login()
    whole = scene.daemon.config.read_text()
    scene.daemon.config.write_text("version: [")
    scene.reload("configuration cannot be used, identities are kept")
    assert scene.status(token) == 200
    assert base64.b64decode(scene.login()).startswith(b"AWS:")
    scene.daemon.config.write_text(whole)
    scene.secret.write_text(SECOND)
    scene.reload(REPLACED)
    assert scene.status(token) == 401
    assert scene.daemon.terminate() == 0


def test_sec_15_a_deleted_secret_revokes(scene: Scene) -> None:
    token, operators = scene.login(), scene.login("AKIDOPERATOR")
    bearer = scene.bearer(token)
    scene.secret.unlink()
    scene.reload(REPLACED)
    assert (scene.status(token), scene.status(bearer, "Bearer"), scene.status(operators)) == (401, 401, 200)
    assert scene.error() == "UnrecognizedClientException"
    assert scene.said("a secret cannot be used, whoever had it is refused") == 1
    scene.secret.write_text(FIRST)
    scene.reload(REPLACED)
    assert scene.status(scene.login()) == 200


def test_sec_15_users_follow_the_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("first")
    user = {"name": "dev", "password": {"file": str(password)}, "grants": [{"actions": ["pull", "push"]}]}
    auth = {"users": [user], "anonymous": [{"actions": ["pull"], "repositories": ["open/*"]}]}
    document = {"nodes": [node(auth=auth)]}
    uploads = "/v2/team/app/blobs/uploads/"

    def basic(secret: str) -> str:
        return "Basic " + base64.b64encode(f"dev:{secret}".encode()).decode()

    with Daemon(tmp_path / "daemon", document) as daemon:

        def push(authorization: str) -> int:
            return call("POST", daemon.url(uploads), headers={"Authorization": authorization}).status

        def reload() -> None:
            before = sum(one.get("event") == "users were replaced" for one in daemon.events())
            daemon.process.signal(signal.SIGHUP)
            eventually(
                lambda: sum(one.get("event") == "users were replaced" for one in daemon.events()) > before,
                "the daemon to replace its users",
                within=15.0,
            )

        answer = call("GET", daemon.url("/v2/token"), headers={"Authorization": basic("first")})
        bearer = "Bearer " + json.loads(answer.body)["token"]
        assert (push(basic("first")), push(bearer)) == (202, 202)
        user["grants"] = [{"actions": ["pull"]}]
        daemon.write_config()
        reload()
        assert (push(basic("first")), push(bearer)) == (403, 403)
        user["grants"] = [{"actions": ["push"]}]
        daemon.write_config()
        password.write_text("second")
        reload()
        assert (push(basic("first")), push(bearer), push(basic("second"))) == (401, 401, 202)
        auth["users"] = []
        daemon.write_config()
        reload()
        assert push(basic("second")) == 401
