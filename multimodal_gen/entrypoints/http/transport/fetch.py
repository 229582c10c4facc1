"""Fetches images by URL, only from hosts that the operator allows.

One parser reads the URL for both the check and the connection. The name is resolved once, the
addresses are checked, and the connection goes to one of them, so that a second DNS answer can't
lead elsewhere; TLS and the Host header use the name. Each redirect is checked again.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence

import httpx2

from multimodal_gen.errors import InvalidRequest

_MAX_REDIRECTS = 3
_TIMEOUT_S = 20.0
_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[!-~]{1,4096}", re.ASCII)
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:\d{1,5})?", re.ASCII)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments
            "192.88.99.0/24",  # 6to4 relays, deprecated
            "2001::/23",  # protocol assignments, Teredo among them
            "2002::/16",  # 6to4, deprecated
            "3fff::/20",  # documentation
        ),
    )
)
"""Networks that Python's `is_global` does not know, in at least one of its versions."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class MediaHosts:
    """Hosts and networks in `allowed_media_hosts`."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Raises InvalidRequest for an entry that is neither a host nor a network."""
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not _NAME.fullmatch(entry.lower()):
                    allowed = "must be host, *.host, host:port or a network such as 10.0.0.0/8"
                    raise InvalidRequest("allowed_media_hosts", entry, allowed) from None
                self._names.add(entry.lower())

    def __bool__(self) -> bool:
        return bool(self._names or self._networks)

    def knows(self, host: str, port: int, scheme: str) -> bool:
        """True if a URL may name `host`: only on the scheme's default port unless the entry has
        one."""
        name = host.lower().rstrip(".")
        if _address(name) is not None:
            return True  # `may_reach` decides
        parents = ("*." + name.split(".", depth)[-1] for depth in range(1, name.count(".") + 1))
        suffixes = (f":{port}", "") if port == _PORTS[scheme] else (f":{port}",)
        return any(each + suffix in self._names for each in (name, *parents) for suffix in suffixes)

    def may_reach(self, address: Address, *, named: bool) -> bool:
        """True if connecting is allowed; `named`: the address belongs to an allowed host."""
        every = [address, *_inside(address)]
        if all(any(each in network for network in self._networks) for each in every):
            return True
        return named and all(map(_is_public, every))


class MediaFetcher:
    """Fetches files of at most `max_bytes`."""

    def __init__(self, hosts: MediaHosts, max_bytes: int, timeout_s: float = _TIMEOUT_S) -> None:
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def fetch(self, url: str, field: str) -> bytes:
        """Fetch `url`; its type is determined by content. Raises InvalidRequest, which reveals
        nothing about other hosts."""
        if not self._hosts:
            allowed = "URLs are not fetched: send the image itself"
            raise InvalidRequest(field, url, allowed)
        try:
            async with asyncio.timeout(self._timeout_s), await self._client() as client:
                return await self._follow(client, url, field)
        except (TimeoutError, httpx2.HTTPError, OSError):
            raise InvalidRequest(field, url, "could not be fetched") from None

    async def _client(self) -> httpx2.AsyncClient:
        tls = await asyncio.to_thread(_tls)
        # Proxies from the environment would resolve the name themselves, and a kept-alive
        # connection would be reused by address, regardless of the name its certificate was checked
        # for.
        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.AsyncClient(
            verify=tls, trust_env=False, timeout=self._timeout_s, limits=limits
        )

    async def _follow(self, client: httpx2.AsyncClient, url: str, field: str) -> bytes:
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            parsed = self._checked(target, url, field)
            found = await self._get(client, parsed, url, field)
            if isinstance(found, bytes):
                return found
            target = str(parsed.join(found))
        raise InvalidRequest(field, url, f"redirects more than {_MAX_REDIRECTS} times")

    def _checked(self, target: str, url: str, field: str) -> httpx2.URL:
        try:
            if not _PLAIN.fullmatch(target) or "\\" in target:
                raise ValueError
            parsed = httpx2.URL(target)
        except (httpx2.InvalidURL, ValueError):
            raise InvalidRequest(field, url, "is not a valid URL") from None
        if parsed.scheme not in _PORTS or parsed.userinfo or not parsed.host:
            raise InvalidRequest(field, url, "must be http(s)://host/path")
        port = parsed.port or _PORTS[parsed.scheme]
        if not self._hosts.knows(parsed.host, port, parsed.scheme):
            raise InvalidRequest(field, url, "host is not allowed by the operator")
        return parsed

    async def _get(
        self, client: httpx2.AsyncClient, parsed: httpx2.URL, url: str, field: str
    ) -> bytes | str:
        """Content, or the redirect target."""
        host, port = parsed.host, parsed.port or _PORTS[parsed.scheme]
        for address in await self._addresses(host, port, url, field):
            request = client.build_request(
                "GET",
                parsed.copy_with(host=str(address)),
                headers={"host": parsed.netloc.decode("ascii"), "accept-encoding": "identity"},
                extensions={"sni_hostname": host},
            )
            try:
                response = await client.send(request, stream=True)
            except httpx2.ConnectError:
                continue
            try:
                return await self._read(response, url, field)
            finally:
                await response.aclose()
        raise InvalidRequest(field, url, "could not be fetched")

    async def _addresses(self, host: str, port: int, url: str, field: str) -> list[Address]:
        literal = _address(host)
        if literal is not None:
            found = [literal]
        else:
            loop = asyncio.get_running_loop()
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [ipaddress.ip_address(answer[4][0]) for answer in answers]
        fine = [each for each in found if self._hosts.may_reach(each, named=literal is None)]
        if not fine:
            raise InvalidRequest(field, url, "address is not allowed by the operator")
        return fine

    async def _read(self, response: httpx2.Response, url: str, field: str) -> bytes | str:
        if response.has_redirect_location:
            return response.headers["location"]
        if response.status_code != 200 or "content-encoding" in response.headers:
            raise InvalidRequest(field, url, "could not be fetched")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._max_bytes:
                raise InvalidRequest(field, url, f"is larger than {self._max_bytes} bytes")
        return bytes(content)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Create it once: this reads all certificate authorities."""
    return ssl.create_default_context()


def _address(host: str) -> Address | None:
    """Parse an address in its usual form; others that resolvers accept (0x7f.1) count as names."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_public(address: Address) -> bool:
    """True for addresses of hosts on the internet, and for those that lead to them through the
    network's own translation. The latter contain an address that is checked too."""
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 6 and not any(address in each for each in (_NAT64, _IPV4_MAPPED)):
        return address in _GLOBAL_UNICAST and not any(address in each for each in _SPECIAL)
    return not any(address in each for each in _SPECIAL)


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that are embedded in an IPv6 one, and reached through it."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    teredo = address.teredo or ()
    nat64 = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
    found = (address.ipv4_mapped, address.sixtofour, nat64, *teredo)
    return [each for each in found if each is not None]
