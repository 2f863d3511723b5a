"""Who may reach a Ray: a local one only this machine, and only with its token; another machine's
only with a token."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

from pipelines.config import RequestError

AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0" wherever no other node ever joins


def check_authenticated(address: str) -> None:
    """Raises RequestError for a cluster on another machine that would be joined without a token.

    Whoever reaches such a cluster runs code on it. `RAY_AUTH_MODE=disabled`, said explicitly, is
    taken for a network that only its owner reaches.
    """
    if address == "auto" or is_loopback(_host_of(address)) or os.environ.get(AUTH_MODE):
        return
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise RequestError(
            f"Ray address {address}: no token to join it with; start its nodes and this job with "
            f"{AUTH_MODE}=token and {AUTH_TOKEN}=..., or say {AUTH_MODE}=disabled"
        )


def _host_of(address: str) -> str:
    return urlsplit(address if "://" in address else f"ray://{address}").hostname or ""


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def loopback_only() -> Iterator[None]:
    """Every port of a Ray that is started in the block is bound to 127.0.0.1.

    By default Ray's ports are open on all of the machine's addresses. Where it knows that no other
    node joins (its switch for systems without clusters) it calls the node 127.0.0.1, and then each
    of its servers listens there. Naming the node so by hand does not help: that name is turned
    into a public one.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(CLUSTERS)
    ray_constants.ENABLE_RAY_CLUSTER = False  # read already, when Ray was imported
    os.environ[CLUSTERS] = "0"  # for the processes it starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        del os.environ[CLUSTERS]
        if before[1] is not None:
            os.environ[CLUSTERS] = before[1]


def ask_for_token() -> None:
    """A Ray that this process starts asks for a token, unless the environment says otherwise:
    loopback is open to every user of the machine.

    The token is in the environment of Ray's processes and nowhere else; Ray's own default would be
    a file in the home directory that decides about later clusters.
    """
    from ray._raylet import Config  # type: ignore[attr-defined]

    if os.environ.setdefault(AUTH_MODE, "token") == "token":
        os.environ.setdefault(AUTH_TOKEN, _token())
        Config.initialize("")  # has read the environment when Ray was imported


@cache
def _token() -> str:
    """One for all that this process starts: Ray reads it once."""
    return secrets.token_hex(32)
