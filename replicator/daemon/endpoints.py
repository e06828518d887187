"""Where the other registries of one node are: upstreams, nodes and destinations, with the share each may use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.config.upstreams import UpstreamSettings
from replicator.core.destinations import RegistryRef
from replicator.core.errors import ConfigurationError
from replicator.core.pull_through_rules import kind_of, parse_client_name
from replicator.replication.worker import WorkerLimits
from replicator.upstream.addresses import Network
from replicator.upstream.endpoint import ClientCertificate, ProxySettings, UpstreamEndpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.config import upstreams as config
    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.config.upstreams import RemoteSettings
    from replicator.core.clock import Clock
    from replicator.core.destinations import DestinationId
    from replicator.core.names import NodeId
    from replicator.daemon.secrets import SecretStore
    from replicator.upstream.endpoint import CredentialSource


class Endpoints:
    """The endpoints of one node. `urls` are the addresses on which the nodes of this process really listen."""

    def __init__(
        self, settings: Settings, node: NodeSettings, secrets: SecretStore, urls: Mapping[NodeId, str]
    ) -> None:
        self._settings = settings
        self._node = node
        self._secrets = secrets
        self._urls = urls

    def upstream(self, name: str, via: str | None = None) -> UpstreamEndpoint:
        """Return a registry that is pulled from, as somebody whose entry in a Via is `via`; raises ConfigurationError.

        Its name may lead to public addresses and to those networks only that the file permits.
        """
        return self._upstream(self._settings.upstream(name), via)

    def upstream_credentials(self, name: str, clock: Clock) -> CredentialSource | None:
        """Return what finds out who we are there, where that may change; raises ConfigurationError."""
        return self._secrets.credential_source(self._settings.upstream(name), clock)

    def client_endpoint(self, client: str, via: str | None = None) -> UpstreamEndpoint:
        """Return the registry that a cache rule leads to, by the name of its client; raises ConfigurationError.

        It is an upstream of the configuration, or else the host of a well-known registry.
        """
        upstream, arn = parse_client_name(client)
        endpoint = self._upstream(self._found(upstream), via)
        return replace(endpoint, name=client, credentials=endpoint.credentials if arn is None else None)

    def client_credentials(self, client: str, clock: Clock) -> CredentialSource | None:
        """Return what finds out who we are there, where that may change; raises ConfigurationError."""
        upstream, arn = parse_client_name(client)
        if arn is None:
            return self._secrets.credential_source(self._found(upstream), clock)
        return self._secrets.rule_credential_source(self._settings, client, arn, clock)

    def _found(self, name: str) -> UpstreamSettings:
        known = next((one for one in self._settings.upstreams if one.name == name), None)
        if known is not None:
            return known
        kind = kind_of(name)
        if kind is None:
            raise ConfigurationError(f"there is no upstream {name} in this configuration")
        return UpstreamSettings.model_validate({"name": name, "url": f"https://{name}", "preset": kind})

    def _upstream(self, settings: UpstreamSettings, via: str | None) -> UpstreamEndpoint:
        known = settings.known_as
        endpoint = self._remote(settings)
        certificate = settings.client_certificate
        return replace(
            endpoint,
            realm_hosts=endpoint.realm_hosts | (known.realm_hosts if known is not None else frozenset()),
            networks=frozenset({Network.PUBLIC, *(Network(one.value) for one in settings.networks)}),
            proxy=self._proxy(settings.proxy),
            client_certificate=None
            if certificate is None
            else ClientCertificate(certificate.certificate, certificate.key),
            via=via,
            breaker=True,
        )

    def registry_credentials(self, clock: Clock) -> dict[RegistryRef, CredentialSource]:
        """Return what finds out who we are to registries that images are sent to, where that may change."""
        found = ((one.name, self._secrets.credential_source(one, clock)) for one in self._settings.registries)
        return {RegistryRef(name): source for name, source in found if source is not None}

    def cache_peer(self, node: NodeId, namespace: str, via: str) -> UpstreamEndpoint:
        """Return a node that is asked for what `namespace`, a registry, has; raises ConfigurationError.

        Replication's shares are not for this: here somebody waits.
        """
        found = self._found_nodes().get(node)
        if found is None:
            raise ConfigurationError(f"{node} is neither a node nor a peer of this configuration")
        return replace(found, namespace=namespace, via=via, breaker=True)

    def nodes(self) -> dict[NodeId, UpstreamEndpoint]:
        """Return where every node is: those of this process by their listeners, the rest by configuration."""
        return {node: self._shared_out(node, endpoint) for node, endpoint in self._found_nodes().items()}

    def _found_nodes(self) -> dict[NodeId, UpstreamEndpoint]:
        found = {node: UpstreamEndpoint(str(node), url) for node, url in self._urls.items()}
        for peer in self._settings.peers:
            found[peer.id] = UpstreamEndpoint(
                str(peer.id),
                peer.url,
                ca_file=peer.ca_file,
                connect_timeout=peer.connect_timeout,
                stall_timeout=peer.stall_timeout,
                total_timeout=peer.total_timeout,
            )
        return found

    def registries(self) -> dict[RegistryRef, UpstreamEndpoint]:
        """Return the registries of somebody else that images may be sent to."""
        found = {RegistryRef(one.name): self._remote(one) for one in self._settings.registries}
        return {ref: self._shared_out(ref, endpoint) for ref, endpoint in found.items()}

    def worker_shares(self) -> dict[str, WorkerLimits]:
        """Return how much may be under way to those destinations that have a share of their own, by their lanes."""
        usual = WorkerLimits()
        return {
            str(one.id): replace(
                usual,
                images_per_destination=one.images or usual.images_per_destination,
                background_per_destination=min(
                    one.images or usual.background_per_destination, usual.background_per_destination
                ),
                blobs_per_destination=one.blobs or usual.blobs_per_destination,
            )
            for one in self._node.replication.limits
        }

    def _remote(self, remote: RemoteSettings) -> UpstreamEndpoint:
        return UpstreamEndpoint(
            name=remote.name,
            url=remote.url,
            credentials=self._secrets.credentials(remote),
            realm_hosts=frozenset(remote.realm_hosts),
            ca_file=remote.ca_file,
            connect_timeout=remote.connect_timeout,
            stall_timeout=remote.stall_timeout,
            total_timeout=remote.total_timeout,
            max_connections=remote.max_connections,
            requests_per_second=remote.requests_per_second,
            bytes_per_second=remote.bandwidth,
        )

    def _proxy(self, settings: config.ProxySettings | None) -> ProxySettings | None:
        if settings is None:
            return None
        known = settings.credentials
        return ProxySettings(settings.url, None if known is None else self._secrets.pair(known))

    def _shared_out(self, destination: DestinationId, endpoint: UpstreamEndpoint) -> UpstreamEndpoint:
        share = self._node.replication.limit(destination)
        if share is None:
            return endpoint
        return replace(
            endpoint,
            requests_per_second=share.requests_per_second or endpoint.requests_per_second,
            bytes_per_second=share.bandwidth or endpoint.bytes_per_second,
        )
