"""Authorization tokens: what a signed request is exchanged for, and clients log in to registries with.

A token is its caller's, in every registry of the region: `registryIds` only says which addresses are told with it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from replicator.control_api.names import RegistryNames, aws_host
from replicator.core.names import AccountId, NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler

_USER = "AWS"


async def get_authorization_token(call: Call) -> Document:
    """Answer with a token for each registry that is named; for the caller's own without names."""
    token = _token(call)
    accounts = call.input.texts("registryIds") or (call.caller.account or call.registry.names.id.account,)
    return {"authorizationData": [{**token, "proxyEndpoint": _endpoint(call, one)} for one in accounts]}


async def get_public_authorization_token(call: Call) -> Document:
    """Answer with a token for public registries, which have one address."""
    return {"authorizationData": _token(call)}


def _token(call: Call) -> Document:
    password, expires_at = call.registry.authorizations.issue(call.key, call.now)
    return {
        "authorizationToken": base64.b64encode(f"{_USER}:{password}".encode()).decode(),
        "expiresAt": expires_at,
    }


def _endpoint(call: Call, account: str) -> str:
    """Return where a registry of the region is: as this process knows it, or where ECR would have it."""
    node = NodeId(AccountId(account), call.registry.names.id.region)
    known = call.registries.get(node)
    names = RegistryNames(node, aws_host(node)) if known is None else known.names
    return names.proxy_endpoint


HANDLERS: Mapping[str, Handler] = {"GetAuthorizationToken": get_authorization_token}
PUBLIC_HANDLERS: Mapping[str, Handler] = {"GetAuthorizationToken": get_public_authorization_token}
