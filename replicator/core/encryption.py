"""How the content of a repository is said to be encrypted; fixed when the repository is created (ECR §6).

The bytes lie as the operator's disks and buckets keep them: this is what is reported, and what decides whether layers
may be mounted from one repository into another.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.arns import partition_of

if TYPE_CHECKING:
    from replicator.core.names import NodeId

_MANAGED_KEYS = uuid.UUID("8f3b7f2e-6a53-4a6c-9a53-0c4d5b0c7a11")


class EncryptionType(enum.StrEnum):
    """ECR's ways."""

    AES256 = "AES256"
    KMS = "KMS"
    KMS_DSSE = "KMS_DSSE"


@dataclass(frozen=True, slots=True)
class Encryption:
    """A way with the key that it uses; AES256 has none, and None elsewhere stands for the account's own."""

    type: EncryptionType = EncryptionType.AES256
    kms_key: str | None = None

    @property
    def uses_kms(self) -> bool:
        """Tell whether a key of KMS is used."""
        return self.type is not EncryptionType.AES256

    def in_registry(self, node: NodeId) -> Encryption:
        """Return the same with its key: where none is named, the one that AWS manages for the account and region."""
        if not self.uses_kms or self.kms_key is not None:
            return self
        return Encryption(self.type, managed_key(node))


def managed_key(node: NodeId) -> str:
    """Return the ARN of the key that AWS manages for ECR in an account and region; always the same one."""
    key = uuid.uuid5(_MANAGED_KEYS, str(node))
    return f"arn:{partition_of(node.region)}:kms:{node.region}:{node.account}:key/{key}"
