from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.config.loader import check_settings, load_settings
from replicator.config.problems import Severity
from replicator.config.references import secrets_of
from replicator.core.errors import ConfigurationError

CANARY = "canary-5f2a91"

MINIMAL = """\
version: 1
nodes:
  - account: "111122223333"
    region: us-east-1
    listen: 127.0.0.1:5001
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_text(text: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def problems_of(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong, each problem without the path of the file."""
    problems = check_settings(path, environ or {})
    return [str(problem).replace(f"{path}:", "", 1) for problem in problems]


def test_a_small_file_is_enough(write: Write) -> None:
    path = write(MINIMAL)
    assert check_settings(path, {}) == []
    [node] = load_settings(path, {}).nodes
    assert str(node.id) == "111122223333/us-east-1"


def test_an_error_says_file_line_key_and_what_was_expected(write: Write) -> None:
    path = write(MINIMAL.replace("127.0.0.1:5001", "abc"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    assert str(caught.value) == f"{path}:5: nodes[0].listen: expected host:port, got 'abc'"


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(write: Write) -> None:
    path = write("""\
version: 2
storage_rot: x
log: {level: loud, access_log: yes}
upstreams:
  - {name: hub, url: "ftp://x"}
  - {name: hub, url: "https://x/v2"}
nodes:
  - account: "12"
    region: us-east-1
    listen: 127.0.0.1:5001
    listen: 127.0.0.1:5002
    storage:
      blobs: {kind: s3, bukket: x}
      metadata: {kind: mongodb}
    cache: {rules: [{prefix: x, upstream: hub, fresh_for: 5}]}
    limits: {max_manifest_size: 1MiB, requests_per_second: 0, request_burst: 1.5}
""")
    assert problems_of(path) == [
        "1: version: expected 1, got 2",
        "2: storage_rot: unknown key, did you mean 'storage_root'?",
        "3: log.access_log: expected true or false, got 'yes'",
        "3: log.level: expected one of 'debug', 'info', 'warning' or 'error', got 'loud'",
        "5: upstreams[0].url: upstream hub of cache rule x: expected http://host or https://host, got 'ftp://x'",
        "6: upstreams[1].url: upstream hub of cache rule x: expected a URL without a path, got 'https://x/v2'",
        "8: nodes[0].account: expected an account id of 12 digits, got '12'",
        "11: nodes[0].listen: appears twice, first on line 10",
        "13: nodes[0].storage.blobs.bucket: is required",
        "13: nodes[0].storage.blobs.bukket: unknown key, did you mean 'bucket'?",
        "14: nodes[0].storage.metadata: expected kind to be one of 'sqlite', 'postgresql', got 'mongodb'",
        "15: nodes[0].cache.rules[0].fresh_for: cache rule x: expected a duration such as 30s, 24h or 1h30m, got 5",
        "15: nodes[0].cache.rules[0].prefix: cache rule x: expected ROOT or a prefix of 2 to 30 characters, got 'x'",
        "16: nodes[0].limits.max_manifest_size: expected at least 4194304, got '1MiB'",
        "16: nodes[0].limits.request_burst: expected a whole number, got 1.5",
        "16: nodes[0].limits.requests_per_second: expected more than 0.0, got 0",
    ]


def test_a_wrong_optional_key_does_not_hide_what_is_wrong_between_sections(write: Write) -> None:
    path = write(
        MINIMAL
        + """\
    colour: blue
    limits: {requests_per_second: fast}
    repositories: [1]
    cache: {rules: [{prefix: hub, upstream: nowhere}]}
  - {account: "111122223333", region: eu-west-1, listen: "127.0.0.1:5001"}
"""
    )
    messages = "\n".join(problems_of(path))
    assert "6: nodes[0].colour: unknown key" in messages
    assert "7: nodes[0].limits.requests_per_second: expected a number, got 'fast'" in messages
    assert "8: nodes[0].repositories: expected a mapping, got a list" in messages
    assert "9: nodes[0].cache.rules[0].upstream: cache rule hub: expected the name of an upstream" in messages
    assert "10: nodes[1].listen: 127.0.0.1:5001 is taken by nodes[0].listen" in messages


def test_a_wrong_item_does_not_shift_the_lines_of_those_after_it(write: Write) -> None:
    path = write(
        """\
version: 1
upstreams:
  - {name: a, url: "https://a", realm_hosts: [ok, "no good", 5, fine]}
  - {name: a, url: "https://b", ca_file: missing.pem}
nodes:
  - {account: "111122223333", region: us-east-1, listen: "127.0.0.1:0"}
"""
    )
    errors = [str(one) for one in check_settings(path, {}) if one.severity is Severity.ERROR]
    assert [error.replace(f"{path}:", "") for error in errors] == [
        "3: upstreams[0].realm_hosts[1]: expected a host name or address, got 'no good'",
        "3: upstreams[0].realm_hosts[2]: expected a host name, got 5",
        f"4: upstreams[1].ca_file: there is no file {path.parent / 'missing.pem'}",
        "4: upstreams[1].name: a is already used by upstreams[0].name",
    ]


def test_an_unknown_key_without_a_likely_meaning_lists_what_there_is(write: Write) -> None:
    path = write(MINIMAL + "    tls: {certificate: a, key: b, zzz: c}\n")
    assert "6: nodes[0].tls.zzz: unknown key, expected one of certificate, key" in problems_of(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: expected a mapping, got an empty file"),
        ("- a\n", "1: expected a mapping with version and nodes"),
        ("just text\n", "1: expected a mapping with version and nodes"),
        ("version: 1\n", "1: nodes: is required"),
        ("version: 1\nnodes: []\n", "2: nodes: expected at least 1 item, got 0"),
        ("version: 1\nnodes:\n", "2: nodes: expected a list, got nothing"),
        ("version: 1\nnodes: {a: b}\n", "2: nodes: expected a list, got a mapping"),
        ("version: 1\nnodes: [5]\n", "2: nodes[0]: expected a mapping, got 5"),
        ("version: 1\nnodes: [\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(write: Write, text: str, message: str) -> None:
    [problem] = problems_of(write(text))
    assert message in problem


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {})


def test_a_file_beyond_the_bounds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * (4 * 2**20 + 1))
    with pytest.raises(ConfigurationError, match="is larger than 4 MiB"):
        load_settings(path, {})
    path.write_bytes(b"version: 1\n# \xff\n")
    with pytest.raises(ConfigurationError, match=r"x\.yaml:2: is not UTF-8 text"):
        load_settings(path, {})


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert check_settings(path, {}) == []


def test_missing_secrets_and_files_are_reported_with_their_keys(write: Write) -> None:
    path = write(
        MINIMAL
        + """\
    tls: {certificate: no.crt, key: no.key}
    auth: {users: [{name: ci, password: {env: CI_PASSWORD}, grants: [{actions: [pull]}]}]}
peer_secret: {file: no.secret}
"""
    )
    here = path.parent
    assert problems_of(path, {"OTHER": CANARY}) == [
        f"6: nodes[0].tls.certificate: there is no file {here}/no.crt",
        f"6: nodes[0].tls.key: there is no file {here}/no.key",
        "7: nodes[0].auth.users[0].password: environment variable CI_PASSWORD is not set",
        f"8: peer_secret: file {here}/no.secret cannot be read: No such file or directory",
    ]


def test_a_peer_secret_that_can_be_guessed_is_refused(write: Write) -> None:
    path = write(MINIMAL + "peer_secret: {env: PEER}\n")
    assert problems_of(path, {"PEER": "x" * 15}) == ["6: peer_secret: expected a secret of at least 16 characters"]
    assert problems_of(path, {"PEER": "x" * 16}) == []


def test_every_secret_is_found_for_the_redactor(write: Write) -> None:
    path = write(
        MINIMAL
        + """\
    auth: {users: [{name: ci, password: {env: A}, grants: [{actions: [pull]}]}]}
    storage: {metadata: {kind: postgresql, dsn: {env: B}}}
peer_secret: {env: C}
"""
    )
    environ = {"A": "a" * 20, "B": "b" * 20, "C": "c" * 20, "D": "d" * 20}
    found = secrets_of(load_settings(path, environ), environ)
    assert {secret.reveal() for secret in found} == {"a" * 20, "b" * 20, "c" * 20}


def test_warnings_do_not_keep_the_daemon_from_starting(write: Write) -> None:
    path = write(MINIMAL + "registries: [{name: hub, url: 'https://hub'}]\n")
    [problem] = check_settings(path, {})
    assert problem.severity is Severity.WARNING
    assert load_settings(path, {}).registries[0].url == "https://hub"


@pytest.mark.parametrize(
    "line",
    [
        f"peer_secret: {CANARY}",
        f"peer_secret: [{CANARY}]",
        f"peer_secret: {{env: '{CANARY}'}}",
        f"peer_secret: {{value: {CANARY}}}",
        f"peer_sekret: {CANARY}",
        f"{CANARY}",
        f"upstreams: [{{name: a, url: 'https://user:{CANARY}@hub'}}]",
        f"upstreams: [{{name: a, url: 'https://hub', credentials: 'user:{CANARY}'}}]",
        f"upstreams: [{{name: a, url: 'https://hub', credentials: {{username: u, password: {CANARY}}}}}]",
        f"upstreams: [{{name: a, url: 'https://hub', credentials: {{username: u, pasword: {CANARY}}}}}]",
        f"upstreams: [{{name: a, url: 'https://hub', credentials: [u, {CANARY}]}}]",
        f"upstreams: {CANARY}",
        f"peers: {{secret: {CANARY}}}",
    ],
)
def test_a_secret_in_the_wrong_place_is_never_quoted(write: Write, line: str) -> None:
    path = write(MINIMAL + line + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    assert CANARY not in str(caught.value)
    assert str(caught.value)


def test_settings_do_not_show_secrets(write: Write) -> None:
    path = write(MINIMAL + "peer_secret: {env: PEER}\n")
    settings = load_settings(path, {"PEER": CANARY + "-long"})
    assert CANARY not in repr(settings) + settings.model_dump_json()


def test_what_a_rule_wants_is_said_in_words(write: Write) -> None:
    rule = "{name: r, destinations: [{registry: UPPER}], %s}"
    keys = ["filters: ['team/*']", "tags: [v 1]", "priority: 11", "lag_objective: 5s, lag_objective_target: 100"]
    rules = ", ".join(rule % key for key in keys)
    path = write(MINIMAL + f"    replication: {{rules: [{rules}]}}\n")
    said = "\n".join(problems_of(path))
    assert "expected the start of a repository name, of lower-case letters, digits and '._-/', taken literally" in said
    assert "got 'team/*'" in said
    assert "expected a tag of letters, digits and '._-', with '*' for any characters, got 'v 1'" in said
    assert "expected a name of at most 63 lower-case letters, digits and '-', got 'UPPER'" in said
    assert "priority: rule r: expected at most 9, got 11" in said
    assert "lag_objective_target: rule r: expected less than 100" in said
