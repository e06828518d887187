from __future__ import annotations

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput
from replicator.core.image_names import parse_image_name

DIGEST = digest_of(b"image")


@pytest.mark.parametrize(
    ("text", "registry", "repository", "reference"),
    [
        ("nginx", "docker.io", "library/nginx", "latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27"),
        ("team/app", "docker.io", "team/app", "latest"),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest"),
        ("index.docker.io/team/app:2", "docker.io", "team/app", "2"),
        ("registry-1.docker.io/nginx", "docker.io", "library/nginx", "latest"),
        ("quay.io/org/app:1.0", "quay.io", "org/app", "1.0"),
        ("Quay.IO/org/app", "quay.io", "org/app", "latest"),
        ("localhost/app", "localhost", "app", "latest"),
        ("localhost:5000/app", "localhost:5000", "app", "latest"),
        ("registry:5000/app:x", "registry:5000", "app", "x"),
        ("HOST/app", "host", "app", "latest"),
        (f"quay.io/app@{DIGEST}", "quay.io", "app", DIGEST),
        (f"nginx:1.27@{DIGEST}", "docker.io", "library/nginx", DIGEST),
    ],
)
def test_image_names(text: str, registry: str, repository: str, reference: str) -> None:
    name = parse_image_name(text)
    assert (name.registry, name.repository, name.reference) == (registry, repository, reference)


@pytest.mark.parametrize(
    ("text", "written"),
    [("nginx", "docker.io/library/nginx:latest"), (f"quay.io/app:1@{DIGEST}", f"quay.io/app@{DIGEST}")],
)
def test_image_names_are_written_in_full(text: str, written: str) -> None:
    assert str(parse_image_name(text)) == written
    assert parse_image_name(written) == parse_image_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "nginx:",
        "nginx@",
        "@",
        "/app",
        "quay.io/",
        "Nginx",
        "a b",
        "nginx:bad tag",
        "nginx@sha256:1",
        "x" * 1025,
    ],
)
def test_what_is_no_image_name(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_image_name(text)
