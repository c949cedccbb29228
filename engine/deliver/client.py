"""The HTTP client of a destination: one request, one answer, nothing raised."""

import asyncio
import ssl
import time
from typing import Final

import aiohttp

from rfmstream.engine.deliver.addresses import ForbiddenAddressError, PublicResolver
from rfmstream.engine.deliver.backoff import retry_after_s
from rfmstream.engine.deliver.model import Answer, Request
from rfmstream.schemas.errors import ConfigError

ANSWER_BYTES_READ_MAX: Final = 1 << 20
"""An answer is read up to here: which rows of a batch it refuses stands in it."""


class HttpClient:
    """Sends the requests of one destination.

    In      timeout_s      for the whole of a request
            allow_private  let names lead to loopback, private and link-local addresses
            ca_file        certificates to trust (PEM) instead of the system's
    Errors  ConfigError    the certificates cannot be used
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        allow_private: bool = False,
        ca_file: str | None = None,
        concurrency: int = 0,
    ) -> None:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificates cannot be used ({error})",
                file=ca_file,
                key="ca_file",
                fix="check that it is PEM",
            ) from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency,
                ssl=context,
                resolver=None if allow_private else PublicResolver(),
                keepalive_timeout=30,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "rfmstream"},
            # A proxy of the environment would look names up by itself.
            trust_env=False,
            auto_decompress=True,
        )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    async def send(self, request: Request) -> Answer:
        """Send a request and return its answer, of status 0 if none came."""
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                body = await response.content.read(ANSWER_BYTES_READ_MAX) if response.status != 204 else b""
                while len(body) < ANSWER_BYTES_READ_MAX and not response.content.at_eof():
                    more = await response.content.read(ANSWER_BYTES_READ_MAX - len(body))
                    body += more
                after_s = retry_after_s(response.headers.get("retry-after"), time.time())
                return Answer(response.status, body, after_s)
        except ForbiddenAddressError as error:
            return Answer(0, error=str(error))
        except aiohttp.ClientConnectorError as error:
            return Answer(0, error=str(error.os_error) if error.os_error else str(error))
        except TimeoutError:
            return Answer(0, error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            return Answer(0, error=f"{type(error).__name__}: {error}")
