"""May the caller do this? Asked before any handler, and of every operation in one way (ECR §14).

The action is the operation's name. What it is done to are the repositories that the request names, or the registry
itself (`*`) when it names none. Whoever may not do it learns nothing of what exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import Denied, InvalidInput
from replicator.core.policy_conditions import tag_facts
from replicator.core.public_registry import BEARER_TOKEN_ACTION
from replicator.core.request_context import RequestContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.input import Input
    from replicator.control_api.names import RegistryNames
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal

_BY_IDENTITY_ONLY = frozenset({"GetAuthorizationToken"})
"""Operations that no policy of a registry or repository decides on."""


def context_of(members: Input, source_ip: str | None, *, is_secure: bool, now: float) -> RequestContext:
    """Return what conditions of policies may ask of a request."""
    return RequestContext(source_ip=source_ip, is_secure=is_secure, now=now, values=_values_of(members))


_FURTHER_ACTIONS = {"ecr-public:GetAuthorizationToken": (BEARER_TOKEN_ACTION,)}
"""What else an operation needs."""


def authorize(caller: Principal, service: str, operation: str, members: Input, names: RegistryNames) -> None:
    """Return if the caller may do what is asked in the registry of these names; raises Denied with ECR's sentence."""
    action = f"{service}:{operation}"
    for further in _FURTHER_ACTIONS.get(action, ()):
        if not caller.may(further, None):
            raise Denied(caller.refusal(further, None))
    for repository in _repositories_of(members, names):
        if not caller.may(action, repository):
            raise Denied(caller.refusal(action, repository))


def is_by_identity_only(operation: str) -> bool:
    """Tell whether only the caller's own policies decide on an operation."""
    return operation in _BY_IDENTITY_ONLY


def _repositories_of(members: Input, names: RegistryNames) -> tuple[RepositoryName | None, ...]:
    """Return the repositories that a request is about; None stands for the registry."""
    name = members.find_text("repositoryName")
    if name is not None:
        return (names.to_stored(name),)
    arn = members.find_text("resourceArn")
    if arn is not None:
        try:
            return (names.parse_repository_arn(arn)[1],)
        except InvalidInput:
            return (None,)  # the handler says what is wrong with it
    return tuple(map(names.to_stored, members.texts("repositoryNames"))) or (None,)


def _values_of(members: Input) -> Mapping[str, tuple[str, ...]]:
    """Return the condition keys of the tags that a request brings."""
    tags = {one.text("Key"): one.text("Value") for one in members.structures("tags") if "Key" in one and "Value" in one}
    keys = (*tags, *members.texts("tagKeys"))
    found = tag_facts("aws:requesttag/", tags)
    return {**found, "aws:tagkeys": keys} if keys else found
