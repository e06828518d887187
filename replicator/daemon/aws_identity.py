"""Who somebody at this machine is to AWS: found where the `aws` command finds it, and exchanged for a token.

Environment, profiles and files are read by botocore, which comes with the extra `replicator[ecr]`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.upstream.ecr_credentials import EXTRA, AwsIdentity, EcrCredentials

if TYPE_CHECKING:
    from replicator.core.clock import Clock


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A user and a password for a registry, until a time in Unix seconds."""

    username: str
    password: str = field(repr=False)
    expires_at: float


def find_identity(region: str | None, endpoint_url: str | None, profile: str | None = None) -> AwsIdentity:
    """Return who we are, and whom we ask; raises ConfigurationError when something of it is nowhere to be found."""
    if importlib.util.find_spec("botocore") is None:
        raise ConfigurationError(f"AWS credentials need botocore: install {EXTRA}, or give --username")
    import botocore.exceptions  # noqa: PLC0415 - an extra
    import botocore.session  # noqa: PLC0415 - an extra, and slow to import

    try:
        session = botocore.session.Session(profile=profile)
        credentials: Any = session.get_credentials()
        found = None if credentials is None else credentials.get_frozen_credentials()
        region = region or session.get_config_variable("region")
    except botocore.exceptions.BotoCoreError as error:
        raise ConfigurationError(f"AWS credentials cannot be read: {error}") from error
    if found is None:
        raise ConfigurationError("there are no AWS credentials, neither in the environment nor in a profile")
    if not region:
        raise ConfigurationError("expected a region: --region, AWS_DEFAULT_REGION or one of the profile")
    return AwsIdentity(region, found.access_key, found.secret_key, found.token, endpoint_url)


async def fetch_login(identity: AwsIdentity, clock: Clock) -> RegistryLogin:
    """Return a fresh token; raises UpstreamDenied when the API gives none."""
    found = await EcrCredentials(identity.endpoint or f"ECR in {identity.region}", identity, clock)()
    if found.credentials is None:
        raise UpstreamDenied("the ECR API gives no token")
    return RegistryLogin(found.credentials.username, found.credentials.password, clock.now() + found.valid_for)
