"""What an endpoint accepts, and what it means."""

from __future__ import annotations

import pytest
from yarl import URL

from replicator.core.errors import ConfigurationError
from replicator.upstream.endpoint import Origin, UpstreamEndpoint, origin_of


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://registry.example", "http or https"),
        ("registry.example", "http or https"),
        ("https://", "with a host"),
        ("https://ann:secret@registry.example", "without user and password"),
        ("https://registry.example?token=x", "without query"),
        ("https://registry.example#x", "without query and fragment"),
    ],
)
def test_url_that_is_no_registrys_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        UpstreamEndpoint("hub", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://docker.io", "https://index.docker.io/", "https://registry-1.docker.io"])
def test_names_of_docker_hub_mean_its_registry(url: str) -> None:
    assert UpstreamEndpoint("hub", url).api_url == "https://registry-1.docker.io"


def test_path_of_a_registry_below_a_proxy_is_kept() -> None:
    assert UpstreamEndpoint("mirror", "https://proxy.example/mirror/").api_url == "https://proxy.example/mirror"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Registry.Example", Origin("https", "registry.example", 443)),
        ("https://registry.example:443/x", Origin("https", "registry.example", 443)),
        ("http://registry.example.", Origin("http", "registry.example", 80)),
        ("http://[::1]:5000/", Origin("http", "::1", 5000)),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: Origin) -> None:
    assert origin_of(URL(url)) == origin


def test_origin_is_written_as_in_a_url() -> None:
    assert str(Origin("http", "::1", 5000)) == "http://[::1]:5000"
