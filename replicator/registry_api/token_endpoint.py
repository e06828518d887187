"""The token endpoint: credentials become a bearer token, as Docker's token service does it.

By GET the credentials are in the Authorization header; by POST, as in OAuth 2, they are a form with
`grant_type=password`. Scopes are not looked at: a token says who its owner is, and what that one may do is decided
whenever the token is shown.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp import web

from replicator.core.errors import InvalidInput, Unsupported
from replicator.registry_api.request_body import check_encoding, read_whole

if TYPE_CHECKING:
    from replicator.registry_api.authentication import Authenticator

TOKEN_PATH = "/v2/token"  # noqa: S105 - a path
METHODS = ("GET", "HEAD", "POST")
_MAX_FORM = 32 * 1024
_MAX_FIELDS = 20
_FORM_TIMEOUT = 30.0


async def answer_token(request: web.BaseRequest, authenticator: Authenticator) -> web.Response:
    """Answer with a token of whoever asks; raises Unauthenticated, AuthorizationExpired, InvalidInput, Unsupported."""
    if request.method not in METHODS:
        raise Unsupported("only GET and POST are supported here", allow=METHODS)
    header = request.headers.get("Authorization")
    if request.method == "POST":
        header = await _credentials(request)
    issued = authenticator.exchange(header)
    document = {"token": issued.token, "access_token": issued.token, "expires_in": issued.expires_in}
    return web.json_response(document, headers={"Cache-Control": "no-store"})


async def _credentials(request: web.BaseRequest) -> str:
    check_encoding(request)
    async with asyncio.timeout(_FORM_TIMEOUT):
        body = await read_whole(request, _MAX_FORM, "form")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:  # not ASCII, or too many fields
        raise InvalidInput("expected a form with grant_type, username and password") from error
    if fields.get("grant_type") != ["password"]:
        raise InvalidInput("expected grant_type=password")
    name, password = (fields.get(key, [""])[0] for key in ("username", "password"))
    return "Basic " + base64.b64encode(f"{name}:{password}".encode("utf-8", "surrogatepass")).decode()
