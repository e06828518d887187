"""What a registry is, and where its images go (ECR §9.1).

Rules of the configuration file are shown as far as ECR can say them: without their extensions, and without destinations
that are no registries of ECR's kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import invalid_parameter
from replicator.core.errors import InvalidInput
from replicator.core.names import NodeId, parse_account, parse_region
from replicator.core.replication_configuration import RegistryRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.core.replication import ReplicationRule

_PREFIX = "PREFIX_MATCH"


async def describe_registry(call: Call) -> Document:
    """Return the registry's replication configuration."""
    found = call.registry.run_time_settings.replication.get()
    rules = [_rule_document(one) for one in (*found.declared, *found.rules)]
    return {"registryId": call.registry.names.id.account, "replicationConfiguration": {"rules": rules}}


async def put_replication_configuration(call: Call) -> Document:
    """Replace the rules that are not the configuration file's."""
    given = call.input.structure("replicationConfiguration").structures("rules")
    rules = [_rule(one) for one in given]
    await call.registry.run_time_settings.replication.put(rules)
    return {"replicationConfiguration": {"rules": [_rule_document(one) for one in rules]}}


def read_destination(destination: Input) -> NodeId:
    """Return a registry that images go to; raises EcrError when there can be none of this name."""
    try:
        return NodeId(parse_account(destination.text("registryId")), parse_region(destination.text("region")))
    except InvalidInput as error:
        raise invalid_parameter("replicationConfiguration", str(error)) from error


def destination_document(destination: NodeId) -> Document:
    """Return a registry that images go to."""
    return {"region": destination.region, "registryId": destination.account}


def _rule(rule: Input) -> RegistryRule:
    deletes = rule.find_structure("deleteReplication")
    return RegistryRule(
        tuple(read_destination(one) for one in rule.structures("destinations")),
        tuple(one.text("filter") for one in rule.structures("repositoryFilters")),
        deletes is not None and deletes.flag("enabled"),
    )


def _rule_document(rule: RegistryRule | ReplicationRule) -> Document:
    filters = [{"filter": one, "filterType": _PREFIX} for one in rule.filters]
    destinations = [destination_document(one) for one in rule.destinations if isinstance(one, NodeId)]
    return present(
        destinations=destinations,
        repositoryFilters=filters or None,
        deleteReplication={"enabled": True} if rule.delete_replication else None,
    )


HANDLERS: Mapping[str, Handler] = {
    "DescribeRegistry": describe_registry,
    "PutReplicationConfiguration": put_replication_configuration,
}
