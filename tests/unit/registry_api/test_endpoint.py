from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidName, PageNotFound
from replicator.core.names import RepositoryName, parse_repository
from replicator.registry_api.endpoint import Endpoint, Route, parse_endpoint

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v2", Endpoint(Route.BASE, RepositoryName(""))),
        ("/v2/", Endpoint(Route.BASE, RepositoryName(""))),
        ("/v2/token", Endpoint(Route.TOKEN, RepositoryName(""))),
        ("/v2/_catalog", Endpoint(Route.CATALOG, RepositoryName(""))),
        ("/v2/_catalog/", Endpoint(Route.CATALOG, RepositoryName(""))),
        ("/v2/a/tags/list", Endpoint(Route.TAGS, parse_repository("a"))),
        ("/v2/a/b/c/tags/list", Endpoint(Route.TAGS, parse_repository("a/b/c"))),
        ("/v2/a/manifests/v1", Endpoint(Route.MANIFEST, parse_repository("a"), "v1")),
        (f"/v2/a/manifests/{DIGEST}", Endpoint(Route.MANIFEST, parse_repository("a"), DIGEST)),
        ("/v2/a/manifests/sha256%3Aabc", Endpoint(Route.MANIFEST, parse_repository("a"), "sha256:abc")),
        ("/v2/a/manifests/", Endpoint(Route.MANIFEST, parse_repository("a"), "")),
        ("/v2/a/manifests/..%2f..%2fb", Endpoint(Route.MANIFEST, parse_repository("a"), "../../b")),
        (f"/v2/a/blobs/{DIGEST}", Endpoint(Route.BLOB, parse_repository("a"), DIGEST)),
        ("/v2/a/blobs/uploads", Endpoint(Route.UPLOADS, parse_repository("a"))),
        ("/v2/a/blobs/uploads/", Endpoint(Route.UPLOADS, parse_repository("a"))),
        ("/v2/a/blobs/uploads/id", Endpoint(Route.UPLOAD, parse_repository("a"), "id")),
        ("/v2/a/blobs/uploads/%2e", Endpoint(Route.UPLOAD, parse_repository("a"), "%2e")),
        (f"/v2/a/referrers/{DIGEST}", Endpoint(Route.REFERRERS, parse_repository("a"), DIGEST)),
        # names made of the words of the paths
        ("/v2/tags/list/tags/list", Endpoint(Route.TAGS, parse_repository("tags/list"))),
        ("/v2/manifests/manifests/manifests", Endpoint(Route.MANIFEST, parse_repository("manifests"), "manifests")),
        ("/v2/a/blobs/manifests/v1", Endpoint(Route.MANIFEST, parse_repository("a/blobs"), "v1")),
        ("/v2/blobs/uploads/blobs/uploads/id", Endpoint(Route.UPLOAD, parse_repository("blobs/uploads"), "id")),
        ("/v2/a/uploads/blobs/uploads", Endpoint(Route.UPLOADS, parse_repository("a/uploads"))),
        ("/v2/token/manifests/v1", Endpoint(Route.MANIFEST, parse_repository("token"), "v1")),
    ],
)
def test_a_path_names_one_endpoint(path: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(path) == endpoint


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "/v1/",
            "/v2x",
            "//v2/",
            "/V2/",
            "/v2//",
            "/v2/a",
            "/v2/a/",
            "/v2/a/b",
            "/v2/_CATALOG",
            "/v2/_catalog/x",
        ),
        *(
            "/v2/manifests/v1",
            "/v2/tags/list",
            "/v2/blobs/uploads/",
            "/v2/a/tags/list/",
            "/v2/a/tags/other",
            "/v2/token/",
        ),
        *("/v2/a/blobs/uploads/id/more", "/v2/a/Manifests/v1", "/v2/a/manifests/v1/", "/v2/a/manifest/v1"),
    ],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(PageNotFound):
        parse_endpoint(path)


@pytest.mark.parametrize(
    "name", ["A", "a//b", "..", "a/../b", "a%2fb", "%61", "a\\b", "a\x00", "é", "\udcff", "a" * 257]
)
@pytest.mark.parametrize(
    "rest", ["tags/list", "manifests/v1", "blobs/uploads/", "blobs/uploads/id", f"referrers/{DIGEST}"]
)
def test_a_malformed_name_is_refused(name: str, rest: str) -> None:
    with pytest.raises(InvalidName):
        parse_endpoint(f"/v2/{name}/{rest}")


@given(
    st.text() | st.lists(st.sampled_from(["v2", "a", "blobs", "uploads", "manifests", "", "..", "%2f"])).map("/".join)
)
def test_parsing_raises_nothing_else(path: str) -> None:
    try:
        endpoint = parse_endpoint("/v2/" + path)
    except (PageNotFound, InvalidName):
        return
    if endpoint.repository:
        assert parse_repository(endpoint.repository) == endpoint.repository


names = st.lists(st.sampled_from(["a", "blobs", "uploads", "manifests", "tags", "list", "v2"]), min_size=1, max_size=4)


@given(names.map("/".join), st.sampled_from(["v1", "uploads-1", DIGEST]))
def test_every_repository_has_its_paths(name: str, argument: str) -> None:
    repository = parse_repository(name)
    assert parse_endpoint(f"/v2/{name}/manifests/{argument}") == Endpoint(Route.MANIFEST, repository, argument)
    assert parse_endpoint(f"/v2/{name}/blobs/uploads/{argument}") == Endpoint(Route.UPLOAD, repository, argument)
    assert parse_endpoint(f"/v2/{name}/blobs/{DIGEST}") == Endpoint(Route.BLOB, repository, DIGEST)
    assert parse_endpoint(f"/v2/{name}/tags/list") == Endpoint(Route.TAGS, repository)
