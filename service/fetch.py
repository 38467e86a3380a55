"""Pictures by URL: off unless hosts are allowed, and never a way into the network that the service runs in.

A name is resolved once, every address of it is judged, and the connection goes to the address that was judged: a name that
resolves to another address the next time changes nothing. No redirects, no proxies of the environment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

import httpx2

from model import ConfigError
from service.admission import Place
from service.errors import Problem, option_problem
from service.settings import Settings

_LONGEST = 2_000  # characters of a URL
_SECONDS = 5.0  # in all: name, connection and bytes
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses inside of IPv6 (RFC 6052)
_COMPATIBLE = ipaddress.ip_network("::/96")  # the same, deprecated (RFC 4291)

Address = IPv4Address | IPv6Address


class Fetcher:
    """Fetches pictures from the hosts that the settings allow."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for networks that cannot be read."""
        self._hosts = frozenset(host.strip().lower() for host in settings.url_hosts.split(",") if host.strip())
        self._most = settings.max_body_bytes
        self._tls: ssl.SSLContext | None = None  # read at first use: certificates of a hundred authorities take their time
        try:
            named = [text.strip() for text in settings.url_networks.split(",") if text.strip()]
            self._networks = [ipaddress.ip_network(text) for text in named]
        except ValueError as error:
            raise ConfigError(f"url_networks is {settings.url_networks!r} ({error}); write 10.0.0.0/8, say") from error

    async def fetch(self, url: str, place: Place) -> bytes:
        """Return what is at a URL, and hold its bytes. Raises Problem: 403, 413, and 422 where it cannot be had."""
        parts = self._judged(url)
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._download(parts, await self._address(parts), place)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            told = f"not within {_SECONDS:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            raise _not_had(f"the picture at url could not be fetched ({told}); send its bytes instead") from error

    def _judged(self, url: str) -> SplitResult:
        """Return the URL's parts. Raises Problem (403) where the host is not allowed."""
        if len(url) > _LONGEST or not url.isascii():
            raise _not_had(f"url has {len(url)} characters; send an https URL of ASCII and at most {_LONGEST}")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or 443
        except ValueError as error:
            raise _not_had("url cannot be read; send an https URL") from error
        if parts.scheme != "https" or "@" in parts.netloc:
            raise Problem("host_not_allowed", "url must begin with https:// and name no user; send the picture's bytes instead")
        if (host if port == 443 else f"{host}:{port}") not in self._hosts:
            detail = f"the host of url is {host[:100]!r}, which this service fetches nothing from; send the picture's bytes"
            raise Problem("host_not_allowed", detail)
        return parts

    async def _address(self, parts: SplitResult) -> Address:
        """Resolve the host. Raises Problem (403) unless every address of it is public or in a network of the settings."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not all(self._allowed(address) for address in addresses):
            raise Problem("host_not_allowed", "the host of url has an address that is not public; send the picture's bytes")
        return addresses[0]

    def _allowed(self, address: Address) -> bool:
        if any(address in network for network in self._networks):
            return True
        return all(
            one.is_global and not one.is_multicast and not getattr(one, "is_site_local", False) for one in _with_embedded(address)
        )

    async def _download(self, parts: SplitResult, address: Address, place: Place) -> bytes:
        numeric = f"[{address}]" if address.version == 6 else str(address)
        target = f"https://{numeric}:{parts.port or 443}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        # As it was sent: a content encoding would let few bytes become many.
        headers = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "sightline"}
        found = bytearray()
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": parts.hostname}) as answer,
        ):
            if answer.status_code != 200:
                raise _not_had(f"the host of url answered {answer.status_code}; a picture needs a 200 without redirects")
            async for piece in answer.aiter_raw():
                if len(found) + len(piece) > self._most:
                    raise Problem("body_too_large", f"the picture at url has more than {self._most} bytes; send a smaller one")
                place.take("body_bytes", len(piece))
                found += piece
        if not found:
            raise _not_had("the picture at url has 0 bytes; send another")
        return bytes(found)


def _with_embedded(address: Address) -> Iterator[Address]:
    """Yield an address and the IPv4 addresses that it stands for: mapped, compatible, 6to4, Teredo, NAT64."""
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
        if address in _NAT64 or address in _COMPATIBLE:
            yield IPv4Address(int(address) & 0xFFFFFFFF)


def _not_had(detail: str) -> Problem:
    return option_problem("url", detail, json=True)
