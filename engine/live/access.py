"""Who may have customers' data: whoever is on loopback, else whoever shows the token."""

import hmac
from collections.abc import Callable
from typing import Final

from aiohttp import web

from rfmstream.engine.service.page_server import Handler

TOKEN_VARIABLE: Final = "RFMSTREAM_LISTEN_TOKEN"  # noqa: S105 - the name of it


class Access:
    """Decides over requests for customers' data.

    In      token    what has to be shown as `Authorization: Bearer`; None: nothing
            is_open  whether data is served without a token: on loopback
    """

    def __init__(self, token: str | None, *, is_open: Callable[[], bool]) -> None:
        self._token = token
        self._is_open = is_open

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return why nobody may have customers' data without the token; None: this one may."""
        if self._token is None:
            if self._is_open():
                return None
            text = f"customers' data is not served beyond loopback without {TOKEN_VARIABLE}\n"
            return web.Response(status=403, text=text)
        shown = request.headers.get("Authorization", "")
        if hmac.compare_digest(shown.encode("utf-8", "replace"), f"Bearer {self._token}".encode()):
            return None
        return web.Response(
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
            text="show the worker's token as a bearer token\n",
        )

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler that answers only who may have customers' data."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = self.refusal(request)
            return await handler(request) if refusal is None else refusal

        return guarded
