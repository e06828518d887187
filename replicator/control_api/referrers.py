"""ListImageReferrers: the images whose subject is another one (ECR §13.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import EcrError, invalid_parameter
from replicator.control_api.images import wanted_status
from replicator.control_api.pages import page_of, token_of
from replicator.core import texts
from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidDigest, UpstreamError
from replicator.storage.metadata.image_details import NEWEST, parse_position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.registry.image_referrers import Referrer

_DEFAULT_PAGE = 20


async def list_image_referrers(call: Call) -> Document:
    """ListImageReferrers: the newest first; none for an unknown subject."""
    try:
        subject = parse_digest(call.input.structure("subjectId").text("imageDigest"))
    except InvalidDigest as error:
        raise invalid_parameter("subjectId.imageDigest", str(error)) from error
    members = call.input.find_structure("filter")
    status = wanted_status(None if members is None else members.find_text("artifactStatus"))
    types = () if members is None else members.texts("artifactTypes")
    page = page_of(call, _DEFAULT_PAGE)
    after = parse_position(page.after) if page.after else NEWEST
    listing = call.registry.referrers.find(call.caller, call.repository, subject, status, types, after, page.size)
    try:
        found = await listing
    except UpstreamError as error:
        raise EcrError(
            "UnableToListUpstreamImageReferrersException", texts.upstream_referrers_failed(str(error))
        ) from error
    token = token_of(str(found.referrers[-1].position)) if found.has_more else None
    return present(referrers=[_show(one) for one in found.referrers], nextToken=token)


def _show(referrer: Referrer) -> Document:
    return present(
        digest=referrer.digest,
        mediaType=referrer.media_type,
        artifactType=referrer.artifact_type,
        size=referrer.size,
        annotations=dict(referrer.annotations) or None,
        artifactStatus=referrer.status.value,
    )


HANDLERS: Mapping[str, Handler] = {"ListImageReferrers": list_image_referrers}
