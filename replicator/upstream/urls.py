"""URLs that an upstream sends: redirects, token realms, upload locations, links to the next page.

They decide whom we talk to next, so what two parsers could read in two ways is not a URL here.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from yarl import URL

from replicator.core.errors import UpstreamContent

_URL_TEXT = re.compile(r"[!-\[\]-~]{1,8192}")  # printable ASCII but the backslash, on which parsers disagree
_PORTS = {"http": 80, "https": 443}


def parse_url(text: str, base: URL | None = None) -> URL:
    """Return an http or https URL that an upstream sent, relative to `base` if it has no host of its own.

    Raises UpstreamContent for anything that two parsers could read in two ways, and for a URL with a password in it.
    """
    if _URL_TEXT.fullmatch(text) is None:
        raise UpstreamContent("the upstream sent a malformed URL")
    try:
        sent = URL(text, encoded=True)
        url = sent if base is None or sent.scheme else base.join(sent)
        other = urlsplit(str(url))
        port = other.port or _PORTS.get(url.scheme)  # a port that is the scheme's own may be written or not
        consistent = (url.raw_host or "").lower() == other.hostname and url.port == port
    except ValueError as error:
        raise UpstreamContent("the upstream sent a malformed URL") from error
    if url.scheme not in {"http", "https"} or not url.raw_host or not consistent or "@" in other.netloc:
        raise UpstreamContent("the upstream sent a URL that is not plain http or https")
    return url
