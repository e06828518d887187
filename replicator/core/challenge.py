"""The WWW-Authenticate challenge of an upstream, and whether its token realm may see our credentials.

RFC 9110 §11.6.1 for the grammar; the token flow is the distribution project's ("Token Authentication Specification").
A realm on a host we were not told about never receives a password (CVE-2026-33540, CVE-2014-5277).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.upstream_presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf"\s*({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|({_WORD}))\s*(?:,|$)")
_SCHEME = re.compile(rf"\s*({_WORD})(?:\s+|$)")
_MAX_HEADER = 8192
# No user, no escapes, no backslash: what is not plainly one host is none.
_URL = re.compile(
    r"(https?)://([0-9a-z](?:[0-9a-z.-]*[0-9a-z])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:[/?#][!-\[\]-~]*)?",
    re.IGNORECASE,
)
_KNOWN_REALMS: Mapping[str | None, frozenset[str]] = {
    preset.url.removeprefix("https://"): preset.realm_hosts for preset in PRESETS.values() if preset.url is not None
}
"""Token hosts that a registry host is known to use."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A scheme in lower case (`basic`, `bearer`) with its parameters, their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge | None:
    """Return the first challenge of a WWW-Authenticate value, or None when it cannot be read."""
    if len(header) > _MAX_HEADER:
        return None
    scheme = _SCHEME.match(header)
    if scheme is None:
        return None
    parameters: dict[str, str] = {}
    position = scheme.end()
    while (match := _PARAMETER.match(header, position)) is not None:
        quoted, plain = match[2], match[3]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        parameters.setdefault(match[1].lower(), value)
        position = match.end()
    return Challenge(scheme[1].lower(), parameters)


def realm_is_trusted(registry_url: str, realm: str, allowed_hosts: Collection[str] = ()) -> bool:
    """Tell whether the token service at `realm` may receive the credentials configured for `registry_url`.

    It may when it is on the registry's own host and port, on a host known to serve that registry, or on one of
    `allowed_hosts` (`host` or `host:port`); and never over http when the registry is spoken to over https.
    """
    registry, token = _origin(registry_url), _origin(realm)
    if registry is None or token is None:
        return False
    if registry.scheme == "https" and token.scheme != "https":
        return False
    if token.host == registry.host and token.number == registry.number:
        return True
    authority = token.host if token.port is None else f"{token.host}:{token.port}"
    known = _KNOWN_REALMS.get(registry.host, frozenset())
    return authority in known or authority in {allowed.lower() for allowed in allowed_hosts}


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int | None

    @property
    def number(self) -> int:
        return self.port if self.port is not None else (443 if self.scheme == "https" else 80)


def _origin(url: str) -> _Origin | None:
    """Return where a URL leads, or None for one that two parsers could read in two ways."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    return _Origin(match[1].lower(), match[2].lower(), int(match[3]) if match[3] else None)
