"""What operators run against a cache: warm it, see what is there and why, check, pin and purge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.daemon import Daemon, node
from tests.support.http_calls import basic, call, get, push_blob, push_manifest
from tests.support.images import build_index
from tests.support.layouts import container_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.support.images import BuiltImage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cache-commands")]

CACHE_NODE = "111122223333/us-east-1"
AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 5000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])
NEWER = container_image([{"etc/name": b"newer"}])


def document(upstream: Daemon, **settings: Any) -> dict[str, Any]:
    """Return a node that caches `org/*` of the upstream for the host `registry.test`, but not `org/secret`."""
    rule: dict[str, Any] = {"prefix": "mirror", "upstream": "origin", "namespaces": ["registry.test"]}
    rule |= {"repositories": {"deny": ["org/secret*"]}}
    upstreams = [{"name": "origin", "url": upstream.url(""), "connect_timeout": "2s"}]
    return {"upstreams": upstreams, "nodes": [node(cache={"rules": [rule]}, **settings)]}


def push(daemon: Daemon, image: BuiltImage, repository: str, *tags: str) -> None:
    base = daemon.url("")
    assert {push_blob(base, repository, content).status for content in image.blobs.values()} == {201}
    for tag in tags:
        assert push_manifest(base, repository, tag, image.manifest, image.media_type).status == 201


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("upstream"), {"nodes": [node("eu-west-1")]}) as running:
        for repository in ("org/app", "org/other", "org/moving", "org/secret"):
            push(running, AMD64, repository, "1.0")
        push(running, AMD64, "org/multi", "amd64")
        push(running, ARM64, "org/multi", "arm64")
        assert push_manifest(running.url(""), "org/multi", "1.0", MULTI.manifest, MULTI.media_type).status == 201
        yield running


@pytest.fixture
def daemon(upstream: Daemon, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "cache", document(upstream)) as running:
        yield running


@pytest.fixture(scope="module")
def untouched(upstream: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a cache that nothing is fetched into."""
    with Daemon(tmp_path_factory.mktemp("untouched"), document(upstream)) as running:
        yield running


def run(daemon: Daemon, *arguments: str) -> CompletedProcess[str]:
    return daemon.command("cache", *arguments, "--config", str(daemon.config))


def run_json(daemon: Daemon, *arguments: str, code: int = 0) -> Any:
    done = run(daemon, *arguments, "--json")
    assert (done.returncode, done.stderr) == (code, ""), done
    return json.loads(done.stdout)


def cached(daemon: Daemon, *prefix: str) -> dict[str, Any]:
    """Return what `cache ls` shows, by name."""
    found = run_json(daemon, "ls", *prefix)["images"]
    return {f"{one['repository']}:{one['tag'] or one['digest']}": one for one in found}


def test_a_list_is_warmed_shown_pinned_and_purged(daemon: Daemon, tmp_path: Path) -> None:
    listed = tmp_path / "images.txt"
    listed.write_text("# what we run\nregistry.test/org/app:1.0\nmirror/org/other:1.0  # again\n\nmirror/org/app:1.0\n")
    done = run(daemon, "warm", "--file", str(listed))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.splitlines()[-1].startswith(f"{CACHE_NODE}: 3 of 3 images complete")
    found = cached(daemon)
    assert set(found) == {"mirror/org/app:1.0", "mirror/org/other:1.0"}
    app = found["mirror/org/app:1.0"]
    assert (app["digest"], app["complete"], app["freshness"], app["upstream"]) == (
        AMD64.digest,
        True,
        "fresh",
        "origin",
    )
    assert app["bytes"] == sum(map(len, AMD64.blobs.values()))
    assert set(cached(daemon, "mirror/org/ot")) == {"mirror/org/other:1.0"}
    assert run(daemon, "pin", "registry.test/org/app:1.0").stdout == "mirror/org/app:1.0 pinned\n"
    assert run(daemon, "pin", "mirror/org/app:none").stdout == "mirror/org/app:none pinned, but it is not cached\n"
    assert "pinned" in run(daemon, "ls").stdout
    kept = run(daemon, "purge", "mirror/org/app:1.0", "--yes")
    assert (kept.returncode, "1 had to stay" in kept.stdout) == (1, True)
    assert "mirror/org/app:1.0" in cached(daemon)
    assert run(daemon, "unpin", "mirror/org/app:1.0").returncode == 0
    purged = run_json(daemon, "purge", "mirror/org/app:1.0", "--yes")["results"][0]
    assert (purged["images"], purged["kept"]) == (1, 0)
    assert set(cached(daemon)) == {"mirror/org/other:1.0"}
    assert run_json(daemon, "purge", "--repository", "mirror/org/other", "--yes")["results"][0]["images"] == 1
    assert run(daemon, "ls").stdout == "nothing is cached\n"
    again = run(daemon, "purge", "mirror/org/other:1.0", "--yes")
    assert (again.returncode, again.stdout) == (0, "mirror/org/other:1.0: nothing of it is cached\n")


def test_kubernetes_manifests_are_warmed_and_what_is_wrong_is_named(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    folder.mkdir()
    pod = {"kind": "Pod", "spec": {"containers": [{"image": "registry.test/org/app:1.0"}]}}
    missing = {"kind": "Pod", "spec": {"initContainers": [{"image": "registry.test/org/nothing:1"}]}}
    foreign = {"kind": "Pod", "spec": {"containers": [{"image": "quay.io/org/app:1.0"}]}}
    own = {"kind": "Pod", "spec": {"containers": [{"image": f"{daemon.address()}/mirror/org/other:1.0"}]}}
    (folder / "pods.yaml").write_text(yaml.safe_dump_all([pod, missing, foreign, own, pod]))
    (folder / "template.yaml").write_text("kind: Pod\nspec:\n  containers:\n  - image: '{{ .Values.image }}'\n")
    done = run(daemon, "warm", "--manifests", str(folder))
    assert done.returncode == 1
    assert f"{CACHE_NODE}: 2 of 4 images complete" in done.stdout
    errors = done.stderr.splitlines()
    assert len(errors) == 3, errors
    assert "registry.test/org/nothing:1: " in errors[0]
    assert "quay.io/org/app:1.0: no cache rule stands for quay.io/org/app" in errors[1]
    assert "template.yaml:4: '{{ .Values.image }}' is a template: render it first" in errors[2]
    assert set(cached(daemon)) == {"mirror/org/app:1.0", "mirror/org/other:1.0"}


def test_platforms_are_chosen(daemon: Daemon) -> None:
    found = run_json(daemon, "warm", "mirror/org/multi:1.0", "--platform", "linux/arm64")["images"][0]
    assert (found["state"], found["blobs"]) == ("complete", len(ARM64.blobs))
    index = cached(daemon)["mirror/org/multi:1.0"]
    assert (index["complete"], index["manifests"]) == (False, {"here": 2, "all": 3})
    assert run(daemon, "warm", "mirror/org/multi:1.0").returncode == 0
    assert cached(daemon)["mirror/org/multi:1.0"]["complete"]


def test_an_image_is_explained_before_and_after_its_pull(daemon: Daemon) -> None:
    cold = run(daemon, "explain", "registry.test/org/app:1.0")
    assert (cold.returncode, cold.stderr) == (0, "")
    assert "mirror/org/app:1.0" in cold.stdout
    assert "no; a pull fetches it" in cold.stdout
    assert cached(daemon) == {}, "explaining fetches nothing"
    assert get(daemon.url("/v2/mirror/org/app/manifests/1.0")).status == 200
    found = run_json(daemon, "explain", "mirror/org/app:1.0")
    assert (found["rule"]["prefix"], found["cached"]["plan"]) == ("mirror", "fresh")
    assert [(one["kind"], one["name"], one["repository"]) for one in found["sources"]] == [
        ("authority", "origin", "org/app")
    ]
    text = run(daemon, "explain", "mirror/org/app:1.0").stdout
    assert "served from here, nobody is asked" in text
    assert "confirmed it" in text


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("registry.test/org/secret:1.0", "repository: no, denied by 'org/secret*'"),
        ("quay.io/org/app", "is not asked: no cache rule stands for quay.io/org/app"),
        ("team/app:1.0", "is not asked: no cache rule covers this repository"),
    ],
)
def test_what_cannot_be_pulled_is_explained(untouched: Daemon, image: str, text: str) -> None:
    done = run(untouched, "explain", image)
    assert (done.returncode, done.stderr) == (1, "")
    assert text in done.stdout


def test_a_refresh_brings_what_has_changed(daemon: Daemon, upstream: Daemon) -> None:
    assert run(daemon, "warm", "mirror/org/moving:1.0").returncode == 0
    assert run(daemon, "refresh", "mirror/org/moving:1.0").stdout == "mirror/org/moving:1.0 confirmed\n"
    push(upstream, NEWER, "org/moving", "1.0")
    assert run(daemon, "refresh", "--repository", "mirror/org/moving").stdout == "mirror/org/moving:1.0 changed\n"
    assert cached(daemon)["mirror/org/moving:1.0"]["digest"] == NEWER.digest


def test_an_upstream_that_is_gone_is_shown(tmp_path: Path) -> None:
    with Daemon(tmp_path / "upstream", {"nodes": [node("eu-west-1")]}) as upstream:
        push(upstream, AMD64, "org/app", "1.0")
        with Daemon(tmp_path / "cache", document(upstream)) as daemon:
            assert run(daemon, "warm", "mirror/org/app:1.0").returncode == 0
            assert "origin " in run(daemon, "status").stdout
            seen = json.loads(daemon.command("status", "--json", "--config", str(daemon.config)).stdout)[0]
            assert [(one["name"], one["health"]["breaker"]) for one in seen["upstreams"]] == [("origin", "closed")]
            upstream.terminate()
            failed = run(daemon, "refresh", "mirror/org/app:1.0")
            assert (failed.returncode, "mirror/org/app:1.0 failed: " in failed.stdout) == (1, True)
            assert "check failed" in run(daemon, "ls").stdout
            assert "failed" in run(daemon, "explain", "mirror/org/app:1.0").stdout
            found = run_json(daemon, "status")
            assert "origin: " in found["upstreams"][0]["last_error"]
            assert found["space"]["rules"][0]["bytes"] == sum(map(len, [AMD64.manifest, *AMD64.blobs.values()]))
            cold = run(daemon, "warm", "mirror/org/other:1.0", "mirror/org/app:1.0")
            assert (cold.returncode, "1 of 2 images complete" in cold.stdout) == (1, True)
            assert "mirror/org/other:1.0: origin: " in cold.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("purge", "mirror/org/app:1.0"), 2, "expected --yes"),
        (("purge", "--yes"), 1, "expected an image or --repository"),
        (("refresh",), 1, "expected an image or --repository"),
        (("refresh", "team/app"), 1, "no cache rule"),
        (("refresh", "mirror/org/app@sha256:" + "ab" * 32), 1, "expected a tag"),
        (("warm",), 1, "expected images, --file or --manifests"),
        (("warm", "mirror/org/app", "--platform", "Linux"), 1, "expected a platform"),
        (("warm", "--file", "/nowhere"), 1, "cannot read /nowhere"),
        (("warm", "--manifests", "/nowhere"), 1, "expected a folder"),
        (("warm", "x", "--concurrency", "0"), 2, "concurrency"),
        (("pin",), 2, "IMAGE"),
        (("pin", "UPPER"), 1, "expected"),
        (("explain", "a:b:c"), 1, "expected"),
        (("ls", "--node", "mars"), 1, "expected --from to name one of"),
        (("ls", "UPPER"), 1, "expected prefix"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said(untouched: Daemon, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = run(untouched, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def guarded(upstream: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a cache with users: one may do everything, one may only read `mirror/org/app`."""
    users = [
        {"name": "admin", "password": {"env": "ADMIN"}, "grants": [{"actions": ["pull", "push", "delete"]}]},
        {
            "name": "reader",
            "password": {"env": "READER"},
            "grants": [{"actions": ["pull"], "repositories": ["mirror/org/app"]}],
        },
    ]
    settings = document(upstream, auth={"users": users})
    with Daemon(tmp_path_factory.mktemp("guarded"), settings, {"ADMIN": "admin-pw", "READER": "reader-pw"}) as running:
        for repository in ("app", "other"):
            headers = basic("admin", "admin-pw")
            assert get(running.url(f"/v2/mirror/org/{repository}/manifests/1.0"), headers).status == 200
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body", "nobody", "reader", "admin"),
    [
        ("GET", "images", None, 401, 200, 200),
        ("GET", "images?repository=mirror/org/other", None, 401, 403, 200),
        ("GET", "explain?image=mirror/org/other:1.0", None, 401, 403, 200),
        ("GET", "explain?image=mirror/org/app:1.0", None, 401, 200, 200),
        ("GET", "upstreams", None, 401, 403, 200),
        ("GET", "space", None, 401, 403, 200),
        ("POST", "refresh", {"image": "mirror/org/app:1.0"}, 401, 403, 200),
        ("POST", "pin", {"image": "mirror/org/app:1.0"}, 401, 403, 200),
        ("POST", "unpin", {"repository": "mirror/org/app", "reference": "1.0"}, 401, 403, 200),
        ("POST", "warm", {"image": "mirror/org/app:1.0"}, 401, 403, 200),
        ("POST", "purge", {"repository": "mirror/org/app", "reference": "nothing"}, 401, 403, 200),
        ("POST", "warm", {"image": "team/app:1.0"}, 401, 403, 400),
        ("POST", "refresh", {"image": "team/app:1.0"}, 401, 403, 404),
        ("POST", "warm", {}, 401, 400, 400),
        ("POST", "warm", {"image": 1}, 401, 400, 400),
        ("POST", "warm", {"image": "mirror/org/app", "platforms": ["?"]}, 401, 400, 400),
        ("POST", "purge", {"repository": "mirror/org/app", "force": "yes"}, 401, 403, 400),
        ("POST", "images", {}, 401, 405, 405),
        ("GET", "nothing", None, 401, 404, 404),
        ("GET", "images?limit=0", None, 401, 400, 400),
        ("GET", "images?after=%00", None, 401, 400, 400),
    ],
)
def test_users_see_and_cause_what_they_may(
    guarded: Daemon, method: str, path: str, body: object, nobody: int, reader: int, admin: int
) -> None:
    url = guarded.url(f"/_replicator/v1/cache/{path}")
    content = None if body is None else json.dumps(body).encode()
    callers: tuple[dict[str, str], ...] = ({}, basic("reader", "reader-pw"), basic("admin", "admin-pw"))
    assert [call(method, url, content, headers).status for headers in callers] == [nobody, reader, admin]


def test_a_user_sees_only_what_may_be_pulled(guarded: Daemon) -> None:
    url = guarded.url("/_replicator/v1/cache/images")
    seen = call("GET", url, None, basic("reader", "reader-pw")).json()["images"]
    assert {one["repository"] for one in seen} == {"mirror/org/app"}


def test_a_web_page_may_not_purge(guarded: Daemon) -> None:
    url = guarded.url("/_replicator/v1/cache/purge")
    headers = {**basic("admin", "admin-pw"), "Origin": "https://evil.test"}
    assert call("POST", url, b'{"repository":"mirror/org/app"}', headers).status == 403
    assert call("GET", guarded.url("/v2/mirror/org/app/manifests/1.0"), None, basic("admin", "admin-pw")).status == 200
