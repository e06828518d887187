"""Operations on the tags that repositories have as resources; repositories are named by ARN (ECR §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.errors import invalid_parameter
from replicator.core import texts
from replicator.core.errors import InvalidInput, RepositoryNotFound
from replicator.core.resource_tags import check_keys, checked_tags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.core.names import RepositoryName


async def tag_resource(call: Call) -> Document:
    """TagResource."""
    repository = _resource(call)
    limit = call.registry.node.settings.quotas.resource_tags
    await call.registry.repositories.add_tags(repository, checked_tags(read_tags(call.input, "tags"), limit))
    return {}


async def untag_resource(call: Call) -> Document:
    """UntagResource: keys that the repository does not have are ignored."""
    repository, keys = _resource(call), call.input.texts("tagKeys")
    check_keys(keys)
    await call.registry.repositories.remove_tags(repository, keys)
    return {}


async def list_tags_for_resource(call: Call) -> Document:
    """ListTagsForResource."""
    found = await call.registry.repositories.get(_resource(call))
    return {"tags": show_tags(found.resource_tags)}


def read_tags(members: Input, name: str) -> list[tuple[str, str]]:
    """Return tags of resources as they were sent, unchecked."""
    # ECR Public requires neither: a tag without a key is refused as one that cannot be, and a value may be empty.
    return [(one.find_text("Key") or "", one.find_text("Value") or "") for one in members.structures(name)]


def show_tags(tags: Mapping[str, str]) -> list[Document]:
    """Return tags of resources as the API writes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _resource(call: Call) -> RepositoryName:
    names = call.registry.names
    try:
        is_ours, repository = names.parse_repository_arn(call.input.text("resourceArn"))
    except InvalidInput as error:
        raise invalid_parameter("resourceArn", "Invalid ARN") from error
    name = names.to_shown(repository)
    if not is_ours:
        account = call.input.text("resourceArn").split(":")[4]
        raise RepositoryNotFound(texts.repository_not_found(name, account))
    return call.registry.stored(name)


HANDLERS: Mapping[str, Handler] = {
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags_for_resource,
}
