"""Images by URL: off unless hosts are allowed, and never a way into the network that the service runs in.

A name is resolved once, all its addresses are checked, and the connection uses the address that was checked: a name that
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
from service.errors import ServiceError, option_error
from service.runtime.admission import Ticket
from service.settings import Settings

_MAX_URL = 2_000  # characters
_TIMEOUT_SECONDS = 5.0  # in total: name, connection and bytes
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses inside of IPv6 (RFC 6052)
_COMPATIBLE = ipaddress.ip_network("::/96")  # the same, deprecated (RFC 4291)

Address = IPv4Address | IPv6Address


class Fetcher:
    """Fetches images from the hosts that the settings allow."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for invalid networks."""
        self._hosts = frozenset(host.strip().lower() for host in settings.url_hosts.split(",") if host.strip())
        self._max_bytes = settings.max_body_bytes
        self._tls: ssl.SSLContext | None = None  # loaded at first use: it takes some 100 ms
        try:
            texts = [text.strip() for text in settings.url_networks.split(",") if text.strip()]
            self._networks = [ipaddress.ip_network(text) for text in texts]
        except ValueError as error:
            raise ConfigError(f"url_networks is {settings.url_networks!r}; write networks such as 10.0.0.0/8") from error

    async def fetch(self, url: str, ticket: Ticket) -> bytes:
        """Return the bytes at a URL, counted in `ticket`. Raises ServiceError: 403, 413, and 422 if they cannot be fetched."""
        parts = self._checked(url)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await self._download(parts, await self._address(parts), ticket)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            raise _url_error(f"the image at url could not be fetched: {_reason(error)}; send its bytes instead") from error

    def _checked(self, url: str) -> SplitResult:
        """Return the URL's parts. Raises ServiceError (403) if the host is not allowed."""
        if len(url) > _MAX_URL or not url.isascii():
            raise _url_error(f"url has {len(url)} characters; send an https URL of ASCII and at most {_MAX_URL}")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or 443
        except ValueError as error:
            raise _url_error("url cannot be read; send an https URL") from error
        if parts.scheme != "https" or "@" in parts.netloc:
            raise ServiceError("host_not_allowed", "url must start with https:// and name no user; send the bytes")
        if (host if port == 443 else f"{host}:{port}") not in self._hosts:
            detail = f"the host of url is {host[:100]!r}, which is not in this service's url_hosts; send the image's bytes"
            raise ServiceError("host_not_allowed", detail)
        return parts

    async def _address(self, parts: SplitResult) -> Address:
        """Resolve the host. Raises ServiceError (403) unless all its addresses are public or in a network of the settings."""
        loop = asyncio.get_running_loop()
        entries = await loop.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
        if not all(self._allowed(address) for address in addresses):
            raise ServiceError("host_not_allowed", "the host of url has an address that is not public; send the image's bytes")
        return addresses[0]

    def _allowed(self, address: Address) -> bool:
        if any(address in network for network in self._networks):
            return True
        return all(
            one.is_global and not one.is_multicast and not getattr(one, "is_site_local", False) for one in _with_embedded(address)
        )

    async def _download(self, parts: SplitResult, address: Address, ticket: Ticket) -> bytes:
        numeric = f"[{address}]" if address.version == 6 else str(address)
        target = f"https://{numeric}:{parts.port or 443}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        # Without a content encoding, which would let few bytes become many.
        headers = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "sightline"}
        body = bytearray()
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": parts.hostname}) as response,
        ):
            if response.status_code != 200:
                raise _url_error(f"the host of url answered {response.status_code}; an image needs a 200 without redirects")
            async for piece in response.aiter_raw():
                if len(body) + len(piece) > self._max_bytes:
                    raise ServiceError("body_too_large", f"the image at url has more than {self._max_bytes} bytes")
                ticket.take("body_bytes", len(piece))
                body += piece
        if not body:
            raise _url_error("the image at url has 0 bytes; send another")
        return bytes(body)


def _with_embedded(address: Address) -> Iterator[Address]:
    """Yield an address and the IPv4 addresses inside it: mapped, compatible, 6to4, Teredo, NAT64."""
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


def _reason(error: Exception) -> str:
    """Return why an image could not be fetched."""
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return f"it did not arrive within {_TIMEOUT_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its host has no address"
    if isinstance(error, httpx2.InvalidURL):
        return "the URL is invalid"
    return "no secure connection" if isinstance(error, httpx2.ConnectError) else "the connection failed"


def _url_error(detail: str) -> ServiceError:
    return option_error("url", detail)
