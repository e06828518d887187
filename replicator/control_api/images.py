"""Operations on images (ECR §3, §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import invalid_parameter
from replicator.control_api.pages import page_of
from replicator.control_api.scanning import scan_members
from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidDigest, InvalidTag
from replicator.core.image_requests import RequestedImage
from replicator.core.image_status import ImageStatus, TagStatus
from replicator.core.names import parse_tag
from replicator.storage.metadata.image_details import Selection, parse_position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.core.digest import Digest
    from replicator.core.image_requests import ImageFailure
    from replicator.core.names import Tag
    from replicator.registry.images import DeletedImage, FoundImage
    from replicator.storage.metadata.image_details import ImageDetail, ImageEntry

_ANY = "ANY"


async def put_image(call: Call) -> Document:
    """PutImage."""
    members = call.input
    text = members.text("imageManifest")
    pushed, media_type = await call.registry.images.put(
        call.caller, call.repository, text, members.find_text("imageManifestMediaType"), _tag(members), _digest(members)
    )
    image_id = present(imageDigest=pushed.digest, imageTag=pushed.tags[0] if pushed.tags else None)
    return {"image": {**call.place, "imageId": image_id, "imageManifest": text, "imageManifestMediaType": media_type}}


def _tag(members: Input) -> Tag | None:
    text = members.find_text("imageTag")
    try:
        return None if text is None else parse_tag(text)
    except InvalidTag as error:
        raise invalid_parameter(
            "imageTag", "must satisfy regular expression '[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}'"
        ) from error


def _digest(members: Input) -> Digest | None:
    text = members.find_text("imageDigest")
    try:
        return None if text is None else parse_digest(text)
    except InvalidDigest as error:
        raise invalid_parameter("imageDigest", "must satisfy regular expression 'sha256:[a-f0-9]{64}'") from error


async def batch_get_image(call: Call) -> Document:
    """BatchGetImage. The stored manifest is what there is: it is never converted to `acceptedMediaTypes`."""
    found, failures = await call.registry.images.get(call.caller, call.repository, requested_images(call))
    return {"images": [_show_image(call, one) for one in found], "failures": _show_failures(failures)}


def _show_image(call: Call, found: FoundImage) -> Document:
    manifest = found.manifest
    return {
        **call.place,
        "imageId": present(imageDigest=manifest.digest, imageTag=found.requested.tag),
        "imageManifest": manifest.content.decode(),
        "imageManifestMediaType": manifest.media_type,
    }


async def batch_delete_image(call: Call) -> Document:
    """BatchDeleteImage."""
    deleted, failures = await call.registry.images.delete(call.repository, requested_images(call))
    return {"imageIds": [_show_id(one) for one in deleted], "failures": _show_failures(failures)}


async def list_images(call: Call) -> Document:
    """ListImages: one entry for each tag of an image, in the order in which they were pushed."""
    page = page_of(call)
    after = parse_position(page.after)
    found = await call.registry.images.list_entries(call.repository, _selection(call), after, page.size + 1)
    shown, token = page.cut(found, lambda one: str(one.position))
    return present(imageIds=[_show_id(one) for one in shown], nextToken=token)


async def describe_images(call: Call) -> Document:
    """DescribeImages: those that are named, or a page of all, in the order in which they were pushed."""
    selection, wanted = _selection(call), requested_images(call)
    if wanted:
        for field in ("nextToken", "maxResults"):
            if field in call.input:
                raise invalid_parameter(field, f"{field} cannot be used together with imageIds")
        found = await call.registry.images.describe(call.repository, wanted, selection.status)
        return {"imageDetails": await _show_details(call, found)}
    page = page_of(call)
    after = parse_position(page.after)
    listed = await call.registry.images.list_details(call.repository, selection, after, page.size + 1)
    shown, token = page.cut(listed, lambda one: str(one.position))
    return present(imageDetails=await _show_details(call, shown), nextToken=token)


def requested_images(call: Call) -> list[RequestedImage]:
    """Return the images that a request names in `imageIds`."""
    return [
        RequestedImage(one.find_text("imageDigest"), one.find_text("imageTag"))
        for one in call.input.structures("imageIds")
    ]


def wanted_status(text: str | None) -> ImageStatus | None:
    """Return the status that a filter asks for: ACTIVE where it says nothing, None for every one."""
    if text is None:
        return ImageStatus.ACTIVE
    return None if text == _ANY else ImageStatus(text)


def _selection(call: Call) -> Selection:
    members = call.input.find_structure("filter")
    if members is None:
        return Selection()
    status = wanted_status(members.find_text("imageStatus"))
    return Selection(status, TagStatus(members.find_text("tagStatus") or TagStatus.ANY))


def _show_id(image: DeletedImage | ImageEntry) -> Document:
    return present(imageDigest=image.digest, imageTag=image.tag)


def _show_failures(failures: Sequence[ImageFailure]) -> list[Document]:
    return [
        {
            "imageId": present(imageDigest=one.image.digest, imageTag=one.image.tag),
            "failureCode": one.code.value,
            "failureReason": one.reason,
        }
        for one in failures
    ]


async def _show_details(call: Call, found: Sequence[ImageDetail]) -> list[Document]:
    if call.registry.names.is_public:
        return [_show_public_detail(call, one) for one in found]
    scans = await call.registry.scans.summaries(call.repository, [one.digest for one in found])
    return [{**_show_detail(call, one), **scan_members(scans.get(one.digest))} for one in found]


def show_content(image: ImageDetail) -> Document:
    """Return what both APIs say of an image."""
    return present(
        imageDigest=image.digest,
        imageSizeInBytes=image.size,
        imagePushedAt=image.pushed_at,
        imageManifestMediaType=image.media_type,
        artifactMediaType=image.artifact_type,
    )


def _show_public_detail(call: Call, image: ImageDetail) -> Document:
    return {**call.place, **show_content(image), **present(imageTags=list(image.tags) or None)}


def _show_detail(call: Call, image: ImageDetail) -> Document:
    is_active = image.status is ImageStatus.ACTIVE
    return present(
        **call.place,
        **show_content(image),
        imageTags=list(image.tags) or None,
        lastRecordedPullTime=image.pulled_at,
        subjectManifestDigest=image.subject,
        imageStatus=image.status.value,
        lastArchivedAt=image.archived_at,
        # Of an image on its way back it is when it will be active.
        lastActivatedAt=image.activated_at if is_active else None,
    )


HANDLERS: Mapping[str, Handler] = {
    "PutImage": put_image,
    "BatchGetImage": batch_get_image,
    "BatchDeleteImage": batch_delete_image,
    "ListImages": list_images,
    "DescribeImages": describe_images,
}
