"""Identities in the file: every form of principal, no secret but on loopback, each problem with its key and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.config.loader import check_settings, load_settings
from replicator.config.references import secrets_of
from replicator.core.errors import ConfigurationError
from replicator.core.principal import EVERYTHING

DEV = "arn:aws:iam::123456789012:user/dev"
CANARY = "canary-5f2a91-canary-5f2a91"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}]}


def key(key_id: str = "AKIDEXAMPLE", **more: object) -> dict[str, object]:
    return {"id": key_id, "secret": {"env": "SECRET"}, **more}


def identity(**more: object) -> dict[str, object]:
    return {"arn": DEV, "access_keys": [key()], **more}


def write(directory: Path, *identities: object, listen: str = "127.0.0.1:5001", **node: Any) -> Path:
    document = {
        "version": 1,
        "nodes": [{"account": "123456789012", "region": "us-east-1", "listen": listen, **node}],
        "identities": list(identities),
    }
    path = directory / "replicator.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def problems(path: Path) -> list[str]:
    return [f"{one.key}: {one.message}" for one in check_settings(path, {"SECRET": CANARY})]


def test_an_identity_with_two_keys_and_policies(tmp_path: Path) -> None:
    (tmp_path / "more.json").write_text(json.dumps(POLICY))
    path = write(
        tmp_path,
        identity(
            access_keys=[key(), key("ASIA2", session_token={"env": "SECRET"})],
            policies=[POLICY],
            policy_files=["more.json"],
            tags={"team": "a"},
        ),
    )
    [found] = load_settings(path, {"SECRET": CANARY}).identities
    assert (found.arn.text, found.arn.account, found.tags) == (DEV, "123456789012", {"team": "a"})
    assert [one.id for one in found.access_keys] == ["AKIDEXAMPLE", "ASIA2"]
    inline, in_file = found.to_policies()
    assert inline.statements == in_file.statements
    assert (inline.name, in_file.name) == (f"policies[0] of {DEV}", str(tmp_path / "more.json"))


def test_a_list_of_nobody_does_not_open_the_nodes(tmp_path: Path) -> None:
    [problem] = problems(write(tmp_path))
    assert "expected at least one identity; leave identities out to accept every caller" in problem


def test_an_administrator_is_a_policy(tmp_path: Path) -> None:
    [found] = load_settings(write(tmp_path, identity(administrator=True)), {"SECRET": CANARY}).identities
    assert found.to_policies() == (EVERYTHING,)


def test_a_root_may_do_everything_in_its_account(tmp_path: Path) -> None:
    root = identity(arn="arn:aws:iam::123456789012:root")
    [found] = load_settings(write(tmp_path, root), {"SECRET": CANARY}).identities
    assert found.to_policies() == (EVERYTHING,)


def test_an_identity_needs_no_node_of_its_account(tmp_path: Path) -> None:
    assert problems(write(tmp_path, identity(arn="arn:aws:iam::999999999999:root"))) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arn": "dev"}, "identities[0].arn: expected the ARN of a user"),
        ({"access_keys": []}, "identities[0].access_keys: expected at least 1 item, got 0"),
        ({"access_keys": [key("a:b")]}, "identities[0].access_keys[0].id: expected"),
        (
            {"access_keys": [{"id": "A", "secret": CANARY}]},
            "identities[0].access_keys[0].secret: a secret is never written here",
        ),
        ({"access_keys": [{"id": "A", "secret": {"env": "NOT_THERE"}}]}, "identities[0].access_keys[0].secret: enviro"),
        ({"policies": ["allow"]}, "identities[0].policies[0]: expected an IAM policy"),
        ({"policies": [POLICY, {}]}, "identities[0].policies[1]: not an identity policy: "),
        (
            {
                "policies": [
                    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Principal": "*"}]}
                ]
            },
            "identities[0].policies[0]: not an identity policy: ",
        ),
        ({"policy_files": ["none.json"]}, "identities[0].policy_files[0]: "),
        ({"administrator": True, "policies": [POLICY]}, "identities[0]: expected either administrator: true or"),
        ({"polices": []}, "identities[0].polices: unknown key, did you mean 'policies'?"),
    ],
)
def test_what_is_wrong_is_reported_with_its_key(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    found = problems(write(tmp_path, identity(**wrong)))
    assert any(one.startswith(message) for one in found), found
    assert CANARY not in "".join(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an identity policy: "),
        (b"\xff", "is not UTF-8 text"),
        (b"{}", "not an identity policy: "),
        (b"[" * 100_000, "not an identity policy: "),
        (json.dumps({**POLICY, "Version": "2024-01-01"}).encode(), "not an identity policy: "),
    ],
    ids=["empty", "binary", "no statement", "deep", "version"],
)
def test_a_policy_file_that_holds_none_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "policy.json").write_bytes(content)
    [found] = problems(write(tmp_path, identity(policy_files=["policy.json"])))
    assert found.startswith(f"identities[0].policy_files[0]: {tmp_path / 'policy.json'}")
    assert message in found


def test_a_problem_has_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, identity(arn="dev"))
    [problem] = check_settings(path, {"SECRET": CANARY})
    assert path.read_text().splitlines()[(problem.line or 0) - 1] == "- arn: dev"


def test_keys_and_principals_are_unique(tmp_path: Path) -> None:
    other = identity(arn="arn:aws:iam::123456789012:user/other")
    assert problems(write(tmp_path, identity(), other)) == [
        "identities[1].access_keys[0].id: AKIDEXAMPLE is already used by identities[0].access_keys[0].id"
    ]
    assert problems(write(tmp_path, identity(), identity(access_keys=[key("OTHER")]))) == [
        f"identities[1].arn: {DEV} is already used by identities[0].arn"
    ]


def test_a_secret_that_signs_is_long(tmp_path: Path) -> None:
    path = write(tmp_path, identity())
    with pytest.raises(ConfigurationError, match="at least 16 characters"):
        load_settings(path, {"SECRET": "short"})


def test_a_secret_in_the_file_is_for_loopback(tmp_path: Path) -> None:
    written = identity(access_keys=[{"id": "test", "secret": {"insecure": "test"}}])
    settings = load_settings(write(tmp_path, written), {})
    assert settings.identities[0].access_keys[0].secret.literal == "test"
    assert secrets_of(settings, {}) == ()  # `test` stays readable in logs
    assert "test" not in repr(settings.identities[0].access_keys[0].secret)
    found = problems(write(tmp_path, written, listen="0.0.0.0:5001", public_url="https://registry.example.com"))
    assert found == [
        "identities[0].access_keys[0].secret.insecure: a secret in the file is for loopback only, and 0.0.0.0:5001 is"
        " reachable by other machines: use {env: NAME} or {file: path}"
    ]


@pytest.mark.parametrize("elsewhere", ["peer_secret"])
def test_no_other_secret_is_written_in_the_file(tmp_path: Path, elsewhere: str) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + f"{elsewhere}: {{insecure: {CANARY}}}\n")
    [found, *_] = problems(path)
    assert found.startswith(f"{elsewhere}: expected exactly one of env and file")


def test_a_node_with_identities_is_not_open(tmp_path: Path) -> None:
    exposed = {"listen": "0.0.0.0:5001", "public_url": "https://registry.example.com"}
    path = write(tmp_path, identity(), **exposed)
    assert problems(path) == []
    document = yaml.safe_load(path.read_text())
    del document["identities"]
    path.write_text(yaml.safe_dump(document))
    assert any("the node has no auth" in one for one in problems(path))


def test_tokens_in_clear_are_doubtful(tmp_path: Path) -> None:
    found = problems(write(tmp_path, identity(), listen="0.0.0.0:5001"))
    assert found == [
        "nodes[0].listen: passwords would cross the network in clear: add tls, or an https:// public_url of a proxy"
    ]


def test_nobody_else_is_called_like_a_token_s_user(tmp_path: Path) -> None:
    user = {"name": "AWS", "password": {"env": "SECRET"}, "grants": [{"actions": ["pull"]}]}
    found = problems(write(tmp_path, identity(), auth={"users": [user]}))
    assert found == [
        "nodes[0].auth.users[0].name: AWS is who logs in with an authorization token; expected another name"
    ]


def test_the_example_of_the_reference_is_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text().partition("### Identities")[2]
    example = text.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "secrets").mkdir()
    for name in ("ci-1", "ci-2"):
        (tmp_path / "secrets" / name).write_text(CANARY)
    path = write(tmp_path)
    path.write_text(path.read_text().partition("identities:")[0] + example)
    [found] = load_settings(path, {}).identities
    assert [one.id for one in found.access_keys] == ["AKIACI1", "AKIACI2"]
    assert len(found.to_policies()) == 1
