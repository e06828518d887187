"""The configurations that come with the program: each loads, and does what its comments say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from replicator.config.loader import check_settings, load_settings
from replicator.core.cache_rules import match_cache_rule, match_namespace
from replicator.core.names import parse_node, parse_repository, parse_tag
from replicator.core.replication import destinations_of

if TYPE_CHECKING:
    from replicator.config.model import Settings

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
NAMES = (
    "DOCKER_HUB_TOKEN",
    "HARBOR_ROBOT_TOKEN",
    "REPLICATOR_ADMIN_PASSWORD",
    "REPLICATOR_AP_PEER_SECRET",
    "REPLICATOR_CI_PASSWORD",
    "REPLICATOR_CLUSTER_PASSWORD",
    "REPLICATOR_PEER_SECRET",
    "REPLICATOR_POSTGRES_DSN",
    "REPLICATOR_S3_ACCESS_KEY_ID",
    "REPLICATOR_S3_SECRET_ACCESS_KEY",
)
SECRETS = dict.fromkeys(NAMES, "a-secret-of-this-test")


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The directory as it is, with the certificates that its user would put there."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    certificates = tmp_path / "configs" / "tls"
    certificates.mkdir()
    issued = trustme.CA().issue_cert("registry.us-east-1.example.com")
    issued.cert_chain_pems[0].write_to_path(certificates / "registry.crt")
    issued.private_key_pem.write_to_path(certificates / "registry.key")
    return tmp_path / "configs"


def load(configs: Path, name: str) -> Settings:
    return load_settings(configs / name, SECRETS)


def test_there_are_configurations() -> None:
    assert {path.name for path in FILES} >= {"three-regions.yaml", "sidecar.yaml", "production.yaml", "mirror.yaml"}


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_each_is_without_errors_and_warnings(configs: Path, name: str) -> None:
    assert [str(problem) for problem in check_settings(configs / name, SECRETS)] == []
    assert load(configs, name).nodes


def test_three_regions_replicate_as_promised(configs: Path) -> None:
    settings = load(configs, "three-regions.yaml")

    def destinations(node: str, repository: str) -> set[str]:
        source = parse_node(node)
        rules = settings.node(source).replication_rules()
        return {str(one.id) for one in destinations_of(rules, source, parse_repository(repository))}

    us, eu, ap = "111122223333/us-east-1", "111122223333/eu-west-1", "444455556666/ap-southeast-1"
    assert destinations(us, "team-a/app") == {eu, ap}
    assert destinations(us, "demo/app") == {eu, ap}
    assert destinations(us, "team-b/app") == set()
    assert destinations(eu, "eu-services/app") == {us}
    assert destinations(ap, "team-a/app") == set()
    assert destinations(us, "shared/app") == {eu}
    assert destinations(eu, "shared/app") == {us}
    [accepted] = settings.node(parse_node(ap)).replication.accept_from
    assert accepted.account == "111122223333"


def test_three_regions_pull_through_as_promised(configs: Path) -> None:
    settings = load(configs, "three-regions.yaml")
    for node in settings.nodes:
        match = match_cache_rule(settings.cache_rules(node), parse_repository("docker-hub/library/alpine"))
        assert match is not None
        assert match.upstream_repository == "library/alpine"
        assert settings.upstream(match.rule.upstream).url == "https://registry-1.docker.io"
        assert {rule.prefix for rule in settings.cache_rules(node)} == {
            "docker-hub",
            "quay",
            "ecr-public",
            "k8s",
            "local",
        }
    assert settings.upstream("local").url == "http://127.0.0.1:5100"


def test_production_replicates_as_promised(configs: Path) -> None:
    [node] = load(configs, "production.yaml").nodes
    rules = node.replication_rules()

    def sent(repository: str, tag: str) -> dict[str, str]:
        found = destinations_of(rules, node.id, parse_repository(repository), parse_tag(tag))
        return {str(one.id): one.repository for one in found}

    eu, ap, harbor = "111122223333/eu-west-1", "444455556666/ap-southeast-1", "registry:harbor"
    assert sent("team-a/app", "v1") == {eu: "team-a/app", ap: "team-a/app", harbor: "acme/team-a/app"}
    assert sent("team-a/app", "dev-1") == {eu: "team-a/app"}
    assert sent("docker-hub/library/alpine", "3") == {}


def test_production_has_no_secret_of_its_own(configs: Path) -> None:
    problems = "\n".join(map(str, check_settings(configs / "production.yaml", {})))
    for name in NAMES:
        assert f"environment variable {name} is not set" in problems


def test_the_sidecar_fills_in_library_and_keeps_space(configs: Path) -> None:
    settings = load(configs, "sidecar.yaml")
    [node] = settings.nodes
    rules = settings.cache_rules(node)
    match = match_cache_rule(rules, parse_repository("docker-hub/nginx"))
    assert match is not None
    assert match.upstream_repository == "library/nginx"
    assert [match.rule.freshness_of(parse_tag(tag)) for tag in ("1.27.3", "1.27", "latest")] == [604800, 86400, 3600]
    assert (node.cache.max_size, node.cache.keep_free) == (100 * 2**30, 10 * 2**30)


@pytest.mark.parametrize(
    ("namespace", "repository", "local", "upstream"),
    [
        ("docker.io", "library/nginx", "docker-hub/library/nginx", "docker-hub"),
        ("registry-1.docker.io", "grafana/grafana", "docker-hub/grafana/grafana", "docker-hub"),
        ("quay.io", "org/app", "quay/org/app", "quay"),
        ("quay.io", "quay/org/app", "quay/org/app", "quay"),
        ("registry.k8s.io", "pause", "k8s/pause", "k8s"),
        ("mcr.microsoft.com", "dotnet/runtime", "microsoft/dotnet/runtime", "microsoft"),
        ("registry.example.com", "org/app", None, None),
    ],
)
def test_the_mirror_stands_for_the_registries_it_names(
    configs: Path, namespace: str, repository: str, local: str | None, upstream: str | None
) -> None:
    settings = load(configs, "mirror.yaml")
    found = match_namespace(settings.cache_rules(settings.nodes[0]), namespace, parse_repository(repository))
    assert (None if found is None else (found[1], found[0].upstream)) == (None if local is None else (local, upstream))


def test_the_mirror_is_docker_hub_to_docker(configs: Path) -> None:
    settings = load(configs, "mirror.yaml")
    match = match_cache_rule(settings.cache_rules(settings.nodes[0]), parse_repository("library/nginx"))
    assert match is not None
    assert (match.rule.upstream, match.upstream_repository) == ("docker-hub", "library/nginx")
