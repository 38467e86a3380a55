"""Clients of requests that come through trusted proxies: the address that X-Forwarded-For names.

Without trusted proxies the header means nothing: any client can send it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from model import ConfigError

Network = IPv4Network | IPv6Network


def proxy_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of the setting trusted_proxies. Raises ConfigError."""
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in text.split(",") if entry.strip())
    except ValueError as error:
        detail = "write addresses or networks, such as 10.0.0.5 or 10.0.0.0/8, comma-separated"
        raise ConfigError(f"trusted_proxies is {text!r}; {detail}") from error


def plain_address(text: str) -> str:
    """Return an address in its usual form, an IPv4 address inside IPv6 as IPv4; "" for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def is_in(text: str, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    plain = plain_address(text)
    return bool(plain) and any(ipaddress.ip_address(plain) in network for network in networks)


class ForwardedMiddleware:
    """Makes the client of a scope the right-most address of X-Forwarded-For that is no trusted proxy.

    uvicorn's middleware reads the header; what it takes from it is used only if it is an address.
    """

    def __init__(self, app: ASGIApp, *, networks: Sequence[Network]) -> None:
        self._app = app
        self._proxied = ProxyHeadersMiddleware(self._checked, [str(network) for network in networks])  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope.get("client"):
            await self._app(scope, receive, send)
            return
        host, port = scope["client"]
        scope["client"] = (plain_address(host) or host, port)
        scope.setdefault("state", {})["connection"] = scope["client"]
        await self._proxied(scope, receive, send)  # type: ignore[arg-type]

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        host, port = scope["client"]
        scope["client"] = (plain_address(host), port) if plain_address(host) else scope["state"]["connection"]
        await self._app(scope, receive, send)
