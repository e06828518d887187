"""Principals of accounts with access keys, for tests of signatures and tokens."""

from __future__ import annotations

from replicator.core.principal import EVERYTHING
from replicator.core.principal_arns import parse_principal_arn
from replicator.registry.identities import AccessKey, Identity

DEV = "arn:aws:iam::123456789012:user/dev"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105 - an example of AWS's own


def access_key(
    key_id: str = "AKIDEXAMPLE", secret: str = SECRET, arn: str = DEV, session_token: str | None = None
) -> AccessKey:
    """Return a key of somebody who may do everything."""
    identity = Identity(arn, parse_principal_arn(arn).account, (EVERYTHING,))
    return AccessKey(key_id, identity, secret, session_token)
