"""Well-known public registries: ECR's upstream registries (`UpstreamRegistry` of its API), and how to speak to each.

Where ECR demands credentials, this cache works without as well, as far as the registry lets nameless callers pull.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.image_names import DOCKER_HUB_HOSTS, DOCKER_HUB_REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class UpstreamPreset:
    """`url` None: each user of the registry has a host of their own, which must be given.

    `realm_hosts` are token hosts that may receive the credentials, `namespaces` are the hosts that image names begin
    with, `host_suffix` is what a host of one's own ends with.
    """

    url: str | None
    realm_hosts: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    host_suffix: str | None = None


PRESETS: Mapping[str, UpstreamPreset] = {
    "docker-hub": UpstreamPreset(f"https://{DOCKER_HUB_REGISTRY}", frozenset({"auth.docker.io"}), DOCKER_HUB_HOSTS),
    "ecr-public": UpstreamPreset("https://public.ecr.aws", frozenset(), frozenset({"public.ecr.aws"})),
    "quay": UpstreamPreset("https://quay.io", frozenset(), frozenset({"quay.io"})),
    "k8s": UpstreamPreset("https://registry.k8s.io", frozenset(), frozenset({"registry.k8s.io"})),
    "github-container-registry": UpstreamPreset("https://ghcr.io", frozenset(), frozenset({"ghcr.io"})),
    "gitlab-container-registry": UpstreamPreset(
        "https://registry.gitlab.com", frozenset({"gitlab.com"}), frozenset({"registry.gitlab.com"})
    ),
    "azure-container-registry": UpstreamPreset(None, host_suffix=".azurecr.io"),
    "chainguard": UpstreamPreset("https://cgr.dev", frozenset(), frozenset({"cgr.dev"})),
    "ecr": UpstreamPreset(None, host_suffix=".amazonaws.com"),
}
