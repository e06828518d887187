"""Operations on lifecycle policies and their previews (ECR §8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import EcrError
from replicator.control_api.pages import number_of, page_of, token_of
from replicator.core.digest import Digest
from replicator.core.names import Tag
from replicator.registry.lifecycle_previews import Wanted
from replicator.storage.metadata.lifecycle_previews import PreviewStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.registry.lifecycle_policies import StoredPolicy
    from replicator.registry.lifecycle_previews import PreviewPage
    from replicator.storage.metadata.lifecycle_previews import Preview, PreviewImage

_TAGGED = {"TAGGED": True, "UNTAGGED": False}


async def put_lifecycle_policy(call: Call) -> Document:
    """Replace the lifecycle policy of a repository."""
    policy = await call.registry.lifecycle_policies.put(call.repository, call.input.text("lifecyclePolicyText"))
    return {**call.place, "lifecyclePolicyText": policy.text}


async def get_lifecycle_policy(call: Call) -> Document:
    """Return the lifecycle policy of a repository."""
    return _policy(call, await call.registry.lifecycle_policies.get(call.repository))


async def delete_lifecycle_policy(call: Call) -> Document:
    """Take the lifecycle policy of a repository away."""
    return _policy(call, await call.registry.lifecycle_policies.delete(call.repository))


async def start_lifecycle_policy_preview(call: Call) -> Document:
    """Start a preview of a policy, the repository's own by default."""
    text = call.input.find_text("lifecyclePolicyText")
    preview = await call.registry.lifecycle_previews.start(call.repository, text)
    return _preview(call, preview)


async def get_lifecycle_policy_preview(call: Call) -> Document:
    """Return how a preview stands, and what it found."""
    page = await call.registry.lifecycle_previews.get(call.repository, _wanted(call))
    answer = _preview(call, page.preview)
    if page.preview.status is PreviewStatus.COMPLETE:
        answer |= _results(page)
    return answer


HANDLERS: Mapping[str, Handler] = {
    "PutLifecyclePolicy": put_lifecycle_policy,
    "GetLifecyclePolicy": get_lifecycle_policy,
    "DeleteLifecyclePolicy": delete_lifecycle_policy,
    "StartLifecyclePolicyPreview": start_lifecycle_policy_preview,
    "GetLifecyclePolicyPreview": get_lifecycle_policy_preview,
}


def _policy(call: Call, policy: StoredPolicy) -> Document:
    return {**call.place, "lifecyclePolicyText": policy.text, "lastEvaluatedAt": policy.evaluated_at}


def _preview(call: Call, preview: Preview) -> Document:
    return {**call.place, "lifecyclePolicyText": preview.policy, "status": preview.status.value}


def _wanted(call: Call) -> Wanted:
    """Return which results a request asks for; the images it names are not given in pages."""
    given = call.input
    images = tuple(
        (_digest(one.find_text("imageDigest")), _tag(one.find_text("imageTag"))) for one in given.structures("imageIds")
    )
    if "imageIds" in given and ("nextToken" in given or "maxResults" in given):
        raise EcrError(
            "InvalidParameterException", "nextToken and maxResults cannot be used when imageIds are specified"
        )
    chosen = given.find_structure("filter")
    tagged = None if chosen is None else _TAGGED.get(chosen.find_text("tagStatus") or "ANY")
    page = page_of(call)
    return Wanted(images, tagged, number_of(page.after), page.size)


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest(text)


def _tag(text: str | None) -> Tag | None:
    return None if text is None else Tag(text)


def _results(page: PreviewPage) -> Document:
    preview = page.preview
    moved = [{"targetStorageClass": "ARCHIVE", "imageTotalCount": preview.transitioning}]
    return present(
        previewResults=[_result(one) for one in page.results],
        summary=present(
            expiringImageTotalCount=preview.expiring,
            transitioningImageTotalCounts=moved if preview.transitioning else None,
        ),
        nextToken=None if page.next_after is None else token_of(str(page.next_after)),
    )


def _result(image: PreviewImage) -> Document:
    return present(
        imageTags=list(image.tags) or None,
        imageDigest=image.digest,
        imagePushedAt=image.pushed_at,
        action=present(type=image.action, targetStorageClass=image.target),
        appliedRulePriority=image.priority,
        storageClass=image.storage_class,
    )
