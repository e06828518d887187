"""Who calls the API: the owner of the access key that signed the request, or on an open node whoever reaches it.

Both look at a request's head before its body is read: what nobody known has signed costs no more than its head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicator.control_api.errors import EcrError
from replicator.control_api.sigv4 import Signature, read_signature, same, shown, unrecognized_client
from replicator.core.principal import UNRESTRICTED
from replicator.registry.identities import principal_of

if TYPE_CHECKING:
    from replicator.control_api.canonical_request import RequestHead
    from replicator.core.clock import Clock
    from replicator.core.names import Region
    from replicator.core.principal import Principal
    from replicator.registry.identities import AccessKey

_PUBLIC_REGIONS = ("us-east-1", "us-west-2")
"""Where ECR Public is served."""


class AccessKeys(Protocol):
    """Knows the access keys that are valid now."""

    def find_key(self, access_key_id: str) -> AccessKey | None:
        """Return a key, or None when nobody has it."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the key that signed the request; there is none on an open node."""

    principal: Principal
    key: AccessKey | None = None


class Claim(Protocol):
    """Who a request says it comes from."""

    def check(self, body_hash: str) -> Caller:
        """Return the caller; raises EcrError when the request was not signed by it."""
        ...


class Callers(Protocol):
    """Knows who may call."""

    def claim(self, head: RequestHead, service: str | None) -> Claim:
        """Return who a request for a service (None: an unknown one) says it comes from; raises EcrError."""
        ...


class OpenCallers:
    """A node without identities: everybody is the root of its account, however a request is signed.

    A signature for another region or service still is a request that was meant for somebody else.
    """

    def __init__(self, region: Region) -> None:
        self._region = region

    def claim(self, head: RequestHead, service: str | None) -> Claim:
        """Return the root; raises EcrError for a signature that is malformed, or meant for another region.

        A web page, which a browser would let ask in its user's place, is nobody: tools send no Origin.
        """
        if "Origin" in head.headers:
            raise EcrError("AccessDeniedException", "A web page may not ask this.")
        if "Authorization" in head.headers or "X-Amz-Signature" in head.target:
            _check_scope(read_signature(head), self._region, service)
        return _OpenClaim()


class SignedCallers:
    """A node with identities: requests are signed by one of them."""

    def __init__(self, keys: AccessKeys, region: Region, clock: Clock) -> None:
        self._keys = keys
        self._region = region
        self._clock = clock

    def claim(self, head: RequestHead, service: str | None) -> Claim:
        """Return the owner of the key; raises EcrError for another's signature, one that has expired, or none."""
        signature = read_signature(head)
        _check_scope(signature, self._region, service)
        signature.check_time(self._clock.now())
        key = self._keys.find_key(signature.key_id)
        if key is None or not same(key.session_token or "", signature.session_token or ""):
            raise unrecognized_client()
        return _SignedClaim(signature, key)


@dataclass(frozen=True, slots=True)
class _OpenClaim:
    def check(self, body_hash: str) -> Caller:
        return Caller(UNRESTRICTED)


@dataclass(frozen=True, slots=True)
class _SignedClaim:
    signature: Signature
    key: AccessKey

    def check(self, body_hash: str) -> Caller:
        self.signature.check(self.key.secret, body_hash)
        return Caller(principal_of(self.key.identity), self.key)


def _check_scope(signature: Signature, region: Region, service: str | None) -> None:
    if service != "ecr-public":
        signature.check_scope((region,), ("ecr", "ecr-public") if service is None else (service,))
        return
    if signature.region not in {region, *_PUBLIC_REGIONS}:
        raise EcrError(
            "UnsupportedCommandException", f"ECR Public is not available in the region '{shown(signature.region)}'."
        )
    signature.check_scope((signature.region,), (service,))
