"""Tokens of private ECR: an AWS identity becomes a user and a password that hold for twelve hours.

ECR's registry takes Basic credentials, which its API gives out (`GetAuthorizationToken`). The API is asked through
botocore in a thread, well before the token ends, so that a failure of the API is no failure of pulls for hours.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib.util
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.upstream.credentials import FIND_TIMEOUT, Found
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from replicator.core.clock import Clock

EXTRA: Final = "replicator[ecr]"
_EARLY: Final = 0.5
"""Share of a token's life after which another one is asked for."""
_UNREACHABLE: Final = {"EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"}
"""Botocore's names of failures after which there is no answer."""


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """Who we are at AWS, and which API is asked; the machine's own identity where no key is given."""

    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    ca_file: str | None = None
    """Whom to trust in place of the machine's authorities."""


class EcrCredentials:
    """A `Search` at the ECR API; raises ConfigurationError when botocore is not installed."""

    def __init__(self, name: str, identity: AwsIdentity, clock: Clock) -> None:
        if importlib.util.find_spec("botocore") is None:
            raise ConfigurationError(f"{name}: its credentials need botocore: install {EXTRA}")
        self._name = name
        self._identity = identity
        self._clock = clock

    async def __call__(self) -> Found:
        """Ask for a token."""
        answer = await asyncio.to_thread(self._ask)
        try:
            data = answer["authorizationData"][0]
            username, _, password = base64.b64decode(data["authorizationToken"], validate=True).decode().partition(":")
            ends_at = data["expiresAt"]
        except (KeyError, IndexError, TypeError, binascii.Error, UnicodeDecodeError):
            # Not chained: the error may carry the token.
            raise UpstreamDenied(f"{self._name}: the ECR API did not answer with a token") from None
        if not password or not isinstance(ends_at, datetime):
            raise UpstreamDenied(f"{self._name}: the ECR API did not answer with a token")
        left = max(0.0, ends_at.astimezone(UTC).timestamp() - self._clock.now())
        return Found(Credentials(username, password), left * _EARLY, left)

    def _ask(self) -> Any:  # noqa: ANN401 - botocore has no types
        import botocore.config  # noqa: PLC0415 - an extra, and slow to import
        import botocore.exceptions  # noqa: PLC0415 - an extra
        import botocore.session  # noqa: PLC0415 - an extra

        patience = FIND_TIMEOUT / 4
        config = botocore.config.Config(
            connect_timeout=patience, read_timeout=patience, retries={"total_max_attempts": 2}
        )
        identity = self._identity
        try:
            client = botocore.session.Session().create_client(
                "ecr",
                region_name=identity.region,
                endpoint_url=identity.endpoint,
                verify=identity.ca_file,
                aws_access_key_id=identity.access_key_id,
                aws_secret_access_key=identity.secret_access_key,
                aws_session_token=identity.session_token,
                config=config,
            )
            return client.get_authorization_token()
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise UpstreamDenied(f"{self._name}: the ECR API gives no token: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what went wrong in the API's own words where it is an answer, else the kind of failure."""
    response = getattr(error, "response", None)
    said = response.get("Error", {}) if isinstance(response, dict) else {}
    code = str(said.get("Code", ""))[:100]
    if code.isprintable() and code:
        return f"it answered {code}"
    kind = type(error).__name__
    return f"it cannot be reached ({kind})" if kind in _UNREACHABLE else kind
