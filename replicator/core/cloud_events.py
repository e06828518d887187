"""An event as CloudEvents 1.0 has it, in the JSON format and structured mode.

`data` is ECR's `detail`; the rest of ECR's envelope becomes context attributes, so that nothing is said twice. `id` and
`source` together are unique, as the specification asks: a receiver tells by them what it had already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
SPEC_VERSION: Final = "1.0"
_PREFIX: Final = "com.amazonaws.ecr."


def cloud_event(document: Mapping[str, object], subject: str) -> dict[str, object]:
    """Return an EventBridge document as a CloudEvent about `subject`, `repository[@digest]`."""
    account, region = document["account"], document["region"]
    detail_type = str(document["detail-type"])
    return {
        "specversion": SPEC_VERSION,
        "id": document["id"],
        "type": type_of(detail_type),
        "source": f"urn:replicator:{region}:{account}",
        "subject": subject,
        "time": document["time"],
        "datacontenttype": "application/json",
        "account": account,
        "region": region,
        "data": document["detail"],
    }


def type_of(detail_type: str) -> str:
    """Return the `type` of events of one of ECR's kinds: `com.amazonaws.ecr.image-action`."""
    return _PREFIX + detail_type.removeprefix("ECR ").lower().replace(" ", "-")
