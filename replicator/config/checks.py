"""What the sections of a configuration owe each other: names that exist, places that are not shared, safe defaults.

Each check sees the whole settings and yields findings; none of them reads a file or opens a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.config.base import is_loopback, url_endpoint
from replicator.config.cache_checks import CACHE_CHECKS
from replicator.config.identity_checks import IDENTITY_CHECKS
from replicator.config.problems import Finding, KeyPath, Severity, repeated
from replicator.config.replication_checks import REPLICATION_CHECKS
from replicator.config.storage import FilesystemSettings, PostgresqlSettings, S3Settings
from replicator.core.destinations import RegistryRef

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings


def check(settings: Settings) -> list[Finding]:
    """Return every error and warning that concerns more than one key."""
    return [finding for one in _CHECKS for finding in one(settings)]


def _unique_names(settings: Settings) -> Iterator[Finding]:
    yield from repeated((("upstreams", i, "name"), one.name) for i, one in enumerate(settings.upstreams))
    yield from repeated((("registries", i, "name"), one.name) for i, one in enumerate(settings.registries))
    nodes = [(("nodes", i), one.id) for i, one in enumerate(settings.nodes)]
    peers = [(("peers", i), one.id) for i, one in enumerate(settings.peers)]
    yield from repeated([*nodes, *peers])
    for i, node in enumerate(settings.nodes):
        rules = node.replication.rules
        yield from repeated((("nodes", i, "replication", "rules", j, "name"), one.name) for j, one in enumerate(rules))
        prefixes = node.cache.rules
        yield from repeated((("nodes", i, "cache", "rules", j, "prefix"), one.prefix) for j, one in enumerate(prefixes))
        templates = node.repositories.templates
        yield from repeated(
            (("nodes", i, "repositories", "templates", j, "prefix"), one.prefix) for j, one in enumerate(templates)
        )
        sinks = node.events.sinks
        yield from repeated((("nodes", i, "events", "sinks", j, "name"), one.name) for j, one in enumerate(sinks))
        users = node.auth.users if node.auth else ()
        yield from repeated((("nodes", i, "auth", "users", j, "name"), one.name) for j, one in enumerate(users))


def _template_quotas(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        for j, template in enumerate(node.repositories.templates):
            for key, message in template.beyond(node.quotas):
                yield Finding(("nodes", i, "repositories", "templates", j, key), message)


def _unique_listen(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        for j in range(i):
            if node.listen.clashes_with(settings.nodes[j].listen):
                yield Finding(("nodes", i, "listen"), f"{node.listen} is taken by nodes[{j}].listen")
                break


def _unique_storage(settings: Settings) -> Iterator[Finding]:
    places = [
        (("nodes", i, "storage", *path), key) for i, node in enumerate(settings.nodes) for path, key in _servers(node)
    ]
    yield from repeated(places, "place")
    yield from _shared_directories(settings)


def _servers(node: NodeSettings) -> Iterator[tuple[KeyPath, Hashable]]:
    metadata, blobs = node.storage.metadata, node.storage.blobs
    if isinstance(metadata, PostgresqlSettings):
        yield ("metadata",), (str(metadata.dsn), metadata.schema_name)
    if isinstance(blobs, S3Settings):
        yield ("blobs",), (blobs.endpoint, blobs.bucket, blobs.prefix.strip("/"))


def _shared_directories(settings: Settings) -> Iterator[Finding]:
    """Yield directories that are, or lie inside, another node's: each node reclaims what it does not know."""
    taken: list[tuple[int, str, Path]] = []
    for i, node in enumerate(settings.nodes):
        own: list[tuple[int, str, Path]] = []
        name = "path" if isinstance(node.storage.blobs, FilesystemSettings) else "ingest_path"
        own.append((i, f"blobs.{name}", settings.blob_path(node)))
        metadata = settings.metadata_path(node)
        if metadata is not None:
            own.append((i, "metadata.path", metadata))
        for _, key, path in own:
            for j, other_key, other in taken:
                if path.is_relative_to(other) or other.is_relative_to(path):
                    where: KeyPath = ("nodes", i, "storage", *key.split("."))
                    yield Finding(where, f"shares {other} with nodes[{j}].storage.{other_key}; expected one of its own")
                    break
        taken += own


def _remotes(settings: Settings) -> Iterator[Finding]:
    used_registries = {
        one.id for node in settings.nodes for rule in node.replication.rules for one in rule.destinations
    }
    for i, registry in enumerate(settings.registries):
        if RegistryRef(registry.name) not in used_registries:
            message = f"registry {registry.name} is not a destination of any replication rule"
            yield Finding(("registries", i), message, Severity.WARNING)
    remotes = [("upstreams", i, one) for i, one in enumerate(settings.upstreams)]
    for section, i, remote in [*remotes, *(("registries", i, one) for i, one in enumerate(settings.registries))]:
        if remote.credentials is not None and _is_exposed(remote.url):
            message = "credentials would cross the network in clear: expected https://"
            yield Finding((section, i, "url"), message, Severity.WARNING)


def _self_reference(settings: Settings) -> Iterator[Finding]:
    """Yield what is elsewhere by its section and here by its address: a node that asks itself waits for itself."""
    addresses = [("upstreams", i, one.url) for i, one in enumerate(settings.upstreams)]
    addresses += [("registries", i, one.url) for i, one in enumerate(settings.registries)]
    addresses += [("peers", i, one.url) for i, one in enumerate(settings.peers)]
    for section, i, url in addresses:
        host, port = url_endpoint(url)
        for j, node in enumerate(settings.nodes):
            public = node.public_url is not None and url_endpoint(node.public_url) == (host, port)
            if public or node.listen.covers(host, port):
                yield Finding((section, i, "url"), f"{url} is nodes[{j}] of this file; expected another registry")
                break


def _exposure(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        if node.listen.is_loopback:
            continue
        if node.auth is None and not settings.identities and not node.allow_unauthenticated_network:
            message = (
                f"{node.listen} is reachable by other machines and the node has no auth: add auth, listen on loopback,"
                " or set allow_unauthenticated_network: true"
            )
            yield Finding(("nodes", i, "listen"), message)
        has_users = node.auth is not None and bool(node.auth.users)
        behind_proxy = node.public_url is not None and node.public_url.startswith("https:")
        if (has_users or settings.identities) and node.tls is None and not behind_proxy:
            message = "passwords would cross the network in clear: add tls, or an https:// public_url of a proxy"
            yield Finding(("nodes", i, "auth" if has_users else "listen"), message, Severity.WARNING)


def _peers(settings: Settings) -> Iterator[Finding]:
    if settings.peer_secret is None and any(peer.secret is None for peer in settings.peers):
        message = "is absent, so it is random; peers in other processes will refuse this process and be refused"
        yield Finding(("peer_secret",), message, Severity.WARNING)
    accounts = {node.account for node in settings.nodes}
    for i, peer in enumerate(settings.peers):
        if peer.secret is None and settings.peer_secret is not None and peer.account not in accounts:
            message = (
                f"shares peer_secret with another account, {peer.account}, which can then speak for any node:"
                " expected a secret of this pair"
            )
            yield Finding(("peers", i), message, Severity.WARNING)
        if _is_exposed(peer.url):
            message = "replication would cross the network in clear: expected https://"
            yield Finding(("peers", i, "url"), message, Severity.WARNING)


def _is_exposed(url: str) -> bool:
    return url.startswith("http:") and not is_loopback(url_endpoint(url)[0])


_CHECKS = (
    _unique_names,
    _template_quotas,
    _unique_listen,
    _unique_storage,
    _remotes,
    _self_reference,
    _exposure,
    _peers,
    *IDENTITY_CHECKS,
    *CACHE_CHECKS,
    *REPLICATION_CHECKS,
)
