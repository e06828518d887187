"""Which images are to be signed on push, and by which profiles (ECR §13.4).

This registry has no signer: a signing that a rule asks for fails, and says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import InvalidInput
from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from replicator.core.names import Region, RepositoryName
    from replicator.core.quotas import Quotas

NO_SIGNER = "SignerNotAvailable"
"""Failure code: there is nothing here that could sign."""
NO_SIGNER_REASON = "this registry has no signer: it keeps the signing configuration, and signs nothing"
_PROFILE = re.compile(r"arn:aws(?:-[a-z]+)*:signer:([a-z0-9-]+):[0-9]{12}:/signing-profiles/[a-zA-Z0-9_]{2,}")


@dataclass(frozen=True, slots=True)
class SigningRule:
    """Images of repositories that match one of `filters` (`*` is any characters), or all without filters."""

    profile: str
    filters: tuple[str, ...] = ()

    def matches(self, repository: RepositoryName) -> bool:
        """Tell whether images of a repository are to be signed."""
        return not self.filters or any(matches_wildcard(pattern, repository) for pattern in self.filters)


@dataclass(frozen=True, slots=True)
class SigningConfiguration:
    """The rules of a registry; none means that nothing is to be signed."""

    rules: tuple[SigningRule, ...] = ()

    def profiles_for(self, repository: RepositoryName) -> tuple[str, ...]:
        """Return the profiles that are to sign images of a repository, each once."""
        return tuple(dict.fromkeys(rule.profile for rule in self.rules if rule.matches(repository)))


def check_signing(configuration: SigningConfiguration, region: Region, quotas: Quotas) -> None:
    """Raise InvalidInput for a configuration that breaks a limit, or names a profile of another region."""
    if len(configuration.rules) > quotas.signing_rules:
        raise _invalid(f"expected at most {quotas.signing_rules} rules, got {len(configuration.rules)}")
    for rule in configuration.rules:
        if len(rule.filters) > quotas.signing_filters:
            raise _invalid(f"expected at most {quotas.signing_filters} filters, got {len(rule.filters)}")
        found = _PROFILE.fullmatch(rule.profile)
        if found is None or found[1] != region:
            raise _invalid(f"expected a signing profile of region {region}, got {rule.profile[:200]!r}")


def _invalid(text: str) -> InvalidInput:
    return InvalidInput(texts.constraint("signingConfiguration", text))
