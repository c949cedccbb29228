"""Which addresses a destination may have: nobody's inside ones, unless asked.

A name is looked up at each connection, and the connection goes to the address that was checked: what the name leads to
a moment later (DNS rebinding) does not matter.

Source  OWASP, "Server-Side Request Forgery Prevention"; IANA special-purpose address registries
"""

import ipaddress
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(OSError):
    """A name leads to an address that is not public."""


def is_public(text: str) -> bool:
    """Tell whether an address is one of the public internet: not loopback, private, link-local, shared or reserved."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


def literal(host: str) -> str | None:
    """Return the address that a host is written as; None: it is a name."""
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return None


class PublicResolver(AbstractResolver):
    """Looks names up, and refuses those that lead anywhere inside."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Errors  ForbiddenAddressError  one of them is not public
        """
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            if not is_public(one["host"]):
                raise ForbiddenAddressError(
                    f"{host} leads to {one['host']}, which is not public; allow_private lets it through"
                )
        return found

    async def close(self) -> None:
        """Let go of the resolver."""
        await self._resolver.close()
