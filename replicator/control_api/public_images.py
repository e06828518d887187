"""Operations on images of public repositories that private ones do not have (ECR §16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.images import show_content
from replicator.control_api.pages import page_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.registry.images import TaggedImage


async def describe_image_tags(call: Call) -> Document:
    """DescribeImageTags: every tag with its image, by name."""
    page = page_of(call)
    found = await call.registry.images.list_tags(call.repository, page.after, page.size + 1)
    shown, token = page.cut(found, lambda one: one.tag)
    return present(imageTagDetails=[_show(one) for one in shown], nextToken=token)


def _show(tagged: TaggedImage) -> Document:
    return {"imageTag": tagged.tag, "createdAt": tagged.set_at, "imageDetail": show_content(tagged.image)}


HANDLERS: Mapping[str, Handler] = {"DescribeImageTags": describe_image_tags}
