from __future__ import annotations

from urllib.parse import urlsplit

from replicator.core.cache_rules import CacheRule, match_namespace
from replicator.core.image_names import parse_image_name
from replicator.core.upstream_presets import PRESETS


def test_presets_are_the_registries_of_ecr() -> None:
    assert set(PRESETS) == {
        "docker-hub",
        "ecr-public",
        "quay",
        "k8s",
        "github-container-registry",
        "gitlab-container-registry",
        "azure-container-registry",
        "chainguard",
        "ecr",
    }


def test_a_preset_says_where_it_is_or_what_its_hosts_end_with() -> None:
    for preset in PRESETS.values():
        if preset.url is None:
            assert preset.host_suffix is not None
            assert preset.host_suffix.startswith(".")
            continue
        parts = urlsplit(preset.url)
        assert parts.scheme == "https"
        assert parts.path == ""
        assert parts.hostname in preset.namespaces


def test_image_names_lead_to_the_rule_of_their_preset() -> None:
    rules = [CacheRule(name, name, namespaces=tuple(preset.namespaces)) for name, preset in PRESETS.items()]
    for text, rule in (("nginx", "docker-hub"), ("quay.io/org/app", "quay"), ("registry.k8s.io/pause:3.9", "k8s")):
        image = parse_image_name(text)
        found = match_namespace(rules, image.registry, image.repository)
        assert found is not None
        assert found[0].prefix == rule
