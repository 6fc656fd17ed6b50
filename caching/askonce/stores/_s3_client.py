"""The boto3 client: imported and made once, in a worker, before the first call if there is time.

Importing boto3 and reading its description of S3 takes a second of CPU, four times what a call may lose to
a store. So a thread begins with that when the store is made. Nothing goes over the network: credentials,
which may come from there, are looked for at the first call.

The only place that knows boto3. It has no types, hence `Any`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
from typing import Any
from urllib.parse import urlsplit

from askonce._errors import missing_extra
from askonce._version import __version__
from askonce.stores._crew import give_up_if_abandoned

_FORK_PATIENCE = 3.0
"""Seconds a fork waits, at most, for boto3 to be loaded."""

_AMAZON = "https://s3.amazonaws.com"
_ATTEMPTS = 2
_NOBODY = {"aws_access_key_id": "-", "aws_secret_access_key": "-"}

_loading = threading.Lock()
"""Held while boto3 is imported and clients are made, which imports more. A child forked in the middle of an
import waits for ever when it imports the same."""


class Client:
    """Makes the client when it is asked for; keeps it apart from forks.

    Args:
        given: the caller's own client, which is used as it is and never closed; None: one is made.
        endpoint_url, region, profile: as of boto3; None: what boto3 finds.
        timeout: seconds to connect, and between two bytes.
        connections: kept open, at most.

    Raises:
        ConfigurationError: boto3 is not installed.
    """

    def __init__(
        self,
        given: Any,
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        timeout: float,
        connections: int,
    ) -> None:
        if given is None and importlib.util.find_spec("boto3") is None:
            raise missing_extra("boto3", "s3", "The S3 store")
        self._given = given
        self._endpoint_url = endpoint_url
        self._region = region
        self._profile = profile
        self._timeout = timeout
        self._connections = connections
        self._lock = threading.Lock()
        self._made: Any = given
        self._session: Any = None
        self._inherited = False

    def after_fork(self) -> None:
        """In the child: no connection of the parent's is used, or both would read each other's answers."""
        self._lock = threading.Lock()
        self._session = None
        self._made = None
        self._inherited = self._given is not None

    def get(self) -> Any:
        """The client. May take a second the first time, and longer where credentials come from afar."""
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    made = self._made = self._make() if self._given is None else self._renew()
        return made

    @property
    def host(self) -> str:
        """Host and port of the server, as far as they are known yet."""
        made: Any = self._made
        url = self._endpoint_url or _AMAZON if made is None else str(made.meta.endpoint_url)
        return urlsplit(url).netloc.rpartition("@")[2]

    @property
    def ready(self) -> bool:
        """Whether the client is there."""
        return self._made is not None

    def warm(self, _: object = None) -> None:
        """Load what making the client needs."""
        with self._lock, contextlib.suppress(Exception):  # it is told to whoever makes the client
            if self._made is None and self._given is None:
                # With credentials nobody looks for them; the session keeps what it has read.
                self._new(**_NOBODY).close()

    def close(self) -> None:
        """Close the connections of a client made here. The next call makes another."""
        if self._given is None:  # no lock: one that is just being made is not waited for
            made: Any = self._made
            self._made = None
            if made is not None:
                made.close()

    def _make(self) -> Any:
        client = self._new()
        # Before each attempt: a retry for which nobody waits any more is not sent.
        client.meta.events.register_first("before-send.s3", _before_send)
        return client

    def _new(self, **credentials: str) -> Any:
        with _loading:
            if self._session is None:
                boto3 = importlib.import_module("boto3")
                # Not boto3's default session: that one is everybody's, and not made for threads.
                self._session = boto3.session.Session(profile_name=self._profile, region_name=self._region)
            config: Any = importlib.import_module("botocore.config").Config
            options: dict[str, Any] = {
                "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
                "connect_timeout": self._timeout,
                "read_timeout": self._timeout,
                "max_pool_connections": self._connections,
                "tcp_keepalive": True,
                "user_agent_extra": f"askonce/{__version__}",
                # Other servers than Amazon's stumble over checksums nobody asked for; entries have their own.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            known = config.OPTION_DEFAULTS  # boto3 before 1.36 adds no checksums and knows no such options
            return self._session.client(
                "s3",
                endpoint_url=self._endpoint_url,
                config=config(**{name: value for name, value in options.items() if name in known}),
                **credentials,
            )

    def _renew(self) -> Any:
        """The caller's client in a forked child: its idle connections are the parent's."""
        given: Any = self._given
        if self._inherited:
            given.close()  # this process's copies only; it opens new ones by itself
            self._inherited = False
        return given


def _before_send(**_: Any) -> None:
    give_up_if_abandoned()


_held: list[threading.Lock] = []


# boto3 imports it, it registers for forks, and what registers while a fork waits is only half called for it.
importlib.import_module("concurrent.futures.thread")


def _before_fork() -> None:
    if _loading.acquire(timeout=_FORK_PATIENCE):
        _held.append(_loading)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 - the old one may be held by a thread that is not here
    _held.clear()
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
