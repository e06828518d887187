"""UpdateImageStorageClass: images into the archive, and back (ECR §13.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.core.image_requests import RequestedImage
from replicator.core.image_status import StorageClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def update_image_storage_class(call: Call) -> Document:
    """UpdateImageStorageClass."""
    members = call.input.structure("imageId")
    wanted = RequestedImage(members.find_text("imageDigest"), members.find_text("imageTag"))
    target = StorageClass(call.input.text("targetStorageClass"))
    digest, status = await call.registry.storage_classes.move(call.repository, wanted, target)
    return {
        **call.place,
        "imageId": present(imageDigest=digest, imageTag=wanted.tag),
        "imageStatus": status.value,
    }


HANDLERS: Mapping[str, Handler] = {"UpdateImageStorageClass": update_image_storage_class}
