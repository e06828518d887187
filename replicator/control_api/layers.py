"""Operations on layers (ECR §3, §6): whether they are there, their upload by parts, and where to download them."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import EcrError
from replicator.core import texts
from replicator.core.byte_range import ByteRange
from replicator.core.digest import Digest, is_digest
from replicator.core.errors import LayerNotFound, UploadOutOfOrder, UpstreamError
from replicator.registry.layers import Availability, LayerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from replicator.control_api.call import Call, Document, Handler

_DIGEST = re.compile(r"[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+")
_SHOWN = 64
"""Characters of an upload's id that are looked at; one has 36."""

_STEP = 256 * 1024
"""Characters that are decoded at once; a multiple of four."""


async def batch_check_layer_availability(call: Call) -> Document:
    """BatchCheckLayerAvailability: digests that cannot be are failures, unknown ones are unavailable."""
    asked = tuple(dict.fromkeys(call.input.texts("layerDigests")))
    checkable = [Digest(one) for one in asked if is_digest(one)]
    states = {state.digest: state for state in await call.registry.layers.check(call.repository, checkable)}
    failures = [_failure(one) for one in asked if _DIGEST.fullmatch(one) is None]
    valid = [Digest(one) for one in asked if _DIGEST.fullmatch(one) is not None]
    known = [states.get(one) or LayerState(one, Availability.UNAVAILABLE) for one in valid]
    return {"layers": [_show(state) for state in known], "failures": failures}


def _failure(digest: str) -> Document:
    code, reason = (
        ("InvalidLayerDigest", texts.INVALID_LAYER_DIGEST) if digest else ("MissingLayerDigest", texts.NO_LAYER_DIGEST)
    )
    return {"layerDigest": digest, "failureCode": code, "failureReason": reason}


def _show(state: LayerState) -> Document:
    return present(
        layerDigest=state.digest,
        layerAvailability=state.availability.value,
        layerSize=state.size,
        mediaType=state.media_type,
    )


async def initiate_layer_upload(call: Call) -> Document:
    """InitiateLayerUpload."""
    session = await call.registry.layer_uploads.start(call.caller, call.repository)
    return {"uploadId": session.id, "partSize": call.registry.node.settings.quotas.layer_part_size}


def _upload(call: Call) -> str:
    """Return the upload that is asked for; no more of what is no id than can be said again in an error."""
    return call.input.text("uploadId")[:_SHOWN]


async def upload_layer_part(call: Call) -> Document:
    """UploadLayerPart."""
    upload, content = _upload(call), call.input.text("layerPartBlob")
    first, last = call.input.number("partFirstByte"), call.input.number("partLastByte")
    length = len(content) // 4 * 3 - content[-2:].count("=")
    try:
        received = await call.registry.layer_uploads.add_part(
            call.caller, call.repository, upload, ByteRange(first, last - first + 1), length, _decoded(content)
        )
    except UploadOutOfOrder as error:
        raise _invalid_part(call, upload, error) from error
    return {**call.place, "uploadId": upload, "lastByteReceived": received - 1}


async def _decoded(content: str) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _STEP):
        yield base64.b64decode(content[start : start + _STEP])


def _invalid_part(call: Call, upload: str, error: UploadOutOfOrder) -> EcrError:
    # The model has no number for "none yet".
    members = {**call.place, "uploadId": upload, "lastValidByteReceived": max(0, error.offset - 1)}
    return EcrError("InvalidLayerPartException", str(error), members=members)


async def complete_layer_upload(call: Call) -> Document:
    """CompleteLayerUpload."""
    upload, digests = _upload(call), call.input.texts("layerDigests")
    blob = await call.registry.layer_uploads.finish(call.caller, call.repository, upload, digests)
    return {**call.place, "uploadId": upload, "layerDigest": blob.digest}


async def get_download_url_for_layer(call: Call) -> Document:
    """GetDownloadUrlForLayer."""
    digest = call.input.text("layerDigest")
    try:
        if not is_digest(digest):
            await call.registry.repositories.get(call.repository)
            raise LayerNotFound(texts.LAYER_NOT_FOUND)
        url = await call.registry.layers.get_url(call.caller, call.repository, Digest(digest), call.origin)
    except UpstreamError as error:
        raise EcrError("UnableToGetUpstreamLayerException", texts.upstream_layer_failed(str(error))) from error
    return {"downloadUrl": url, "layerDigest": digest}


HANDLERS: Mapping[str, Handler] = {
    "BatchCheckLayerAvailability": batch_check_layer_availability,
    "InitiateLayerUpload": initiate_layer_upload,
    "UploadLayerPart": upload_layer_part,
    "CompleteLayerUpload": complete_layer_upload,
    "GetDownloadUrlForLayer": get_download_url_for_layer,
}
