"""Addresses of this machine."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from multimodal_gen.errors import InvalidRequest


def tcp_address(host: str, port: int) -> str:
    """The address for a socket of ZeroMQ."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def resolve(field: str, host: str) -> str:
    """IP address of `host`, given in `field`. Raises InvalidRequest."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        allowed = f"the host must be known: {error.strerror}"
        raise InvalidRequest(field, host, allowed) from error
    return str(found[0][4][0])


def interface_towards(address: str) -> str:
    """Name of the network interface by which this machine reaches an IP address, or has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # Sends nothing: it only picks the way.
        own = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if each.family == family and own in _network(each.address, each.netmask):
                return name
    return ""


def _network(address: str, netmask: str | None) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network of an interface: an address of its own, or a whole one as of loopback."""
    plain = address.partition("%")[0]
    if not ipaddress.ip_address(plain).is_loopback or netmask is None:
        return ipaddress.ip_network(plain)
    return ipaddress.ip_network(f"{plain}/{netmask}", strict=False)
