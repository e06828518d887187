"""Policies of repositories and of the registry (ECR §14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def set_repository_policy(call: Call) -> Document:
    """Give a repository a policy."""
    text = call.input.text("policyText")
    policies = call.registry.repository_policies
    await policies.set(call.caller, call.repository, text, force=call.input.flag("force"))
    return {**call.place, "policyText": text}


async def get_repository_policy(call: Call) -> Document:
    """Return the policy of a repository."""
    return {**call.place, "policyText": await call.registry.repository_policies.get(call.repository)}


async def delete_repository_policy(call: Call) -> Document:
    """Take the policy of a repository away."""
    return {**call.place, "policyText": await call.registry.repository_policies.delete(call.repository)}


async def put_registry_policy(call: Call) -> Document:
    """Put a policy of the registry."""
    text = call.input.text("policyText")
    await call.registry.run_time_settings.policy.put(text)
    return _registry(call, text)


async def get_registry_policy(call: Call) -> Document:
    """Return the policy of the registry."""
    return _registry(call, call.registry.run_time_settings.policy.get())


async def delete_registry_policy(call: Call) -> Document:
    """Remove the policy of the registry."""
    return _registry(call, await call.registry.run_time_settings.policy.delete())


def _registry(call: Call, text: str) -> Document:
    return {"registryId": call.registry.names.id.account, "policyText": text}


HANDLERS: Mapping[str, Handler] = {
    "SetRepositoryPolicy": set_repository_policy,
    "GetRepositoryPolicy": get_repository_policy,
    "DeleteRepositoryPolicy": delete_repository_policy,
    "PutRegistryPolicy": put_registry_policy,
    "GetRegistryPolicy": get_registry_policy,
    "DeleteRegistryPolicy": delete_registry_policy,
}
