"""Valkey and Redis servers, standalone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers.binaries import Kind, redis_like
from servers.process import Server, running

__all__ = ["RedisServer", "client_at", "impatient", "redis_server"]


def impatient(**options: Any) -> dict[str, Any]:
    """Options for a redis-py client that gives up early and retries nothing."""
    return {"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "retry": Retry(NoBackoff(), 0), **options}


def client_at(address: tuple[str, int], **options: Any) -> redis.Redis:
    """A client of this address, which may be a relay's, that waits 0.3 s at most. Use it in `with`."""
    host, port = address
    return redis.Redis(host=host, port=port, **impatient(**{"socket_timeout": 0.3, **options}))


class RedisServer(Server):
    """A Valkey or Redis process. Nothing is persisted, so a restart comes back empty.

    Args:
        kind: "valkey" or "redis".
        *args: Arguments of the command line, after everything else.
        password: Of the default user.
        users: ACL users besides: name to rules, as in `{"app": "on >secret ~askonce:* +@all"}`.
        maxmemory: As in the configuration, "8mb" say. The policy stays `noeviction` unless given.
        unix_socket: Listen on a socket file as well.
        config: Lines of the configuration file.
    """

    def __init__(
        self,
        kind: Kind = "valkey",
        *args: str,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        maxmemory: str | None = None,
        unix_socket: bool = False,
        config: tuple[str, ...] = (),
    ) -> None:
        program = redis_like(kind)
        super().__init__()
        self.kind = kind
        self.password = password
        self.unix_socket = self.folder / "socket" if unix_socket else None
        self._program, self._args = program, args
        # Access for this kit, whatever a test does to the default user.
        self._admin = {"username": "kit", "password": secrets.token_hex(8)}
        lines = [
            f"bind {self.host}",
            f"port {self.port}",
            f'dir "{self.folder}"',
            'save ""',
            "appendonly no",
            "enable-debug-command local",
            f"user kit on >{self._admin['password']} ~* &* +@all",
            *(f"user {name} {rules}" for name, rules in (users or {}).items()),
            *config,
        ]
        if password is not None:
            lines.append(f'requirepass "{password}"')
        if maxmemory is not None:
            lines.append(f"maxmemory {maxmemory}")
        if self.unix_socket is not None:
            lines.append(f'unixsocket "{self.unix_socket}"')
        self.config_file = self.folder / "server.conf"
        self.config_file.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [str(self._program), str(self.config_file), *self._args]

    def answers(self) -> bool:
        try:
            with self.client(socket_timeout=1.0, socket_connect_timeout=1.0) as client:
                return client.info("server")["process_id"] == self.pid
        except redis.RedisError:
            return False

    @property
    def url(self) -> str:
        """The URL, with the default user's password."""
        secret = "" if self.password is None else f":{self.password}@"
        return f"redis://{secret}{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The URL of the socket file."""
        secret = "" if self.password is None else f":{self.password}@"
        return f"unix://{secret}{self.unix_socket}?db=0"

    def client(self, **options: Any) -> redis.Redis:
        """A client that may do everything and retries nothing. Use it in a `with` statement."""
        return redis.Redis(host=self.host, port=self.port, **impatient(**self._admin, **options))

    def run(self, *command: Any) -> Any:
        """One command, on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Forget all keys."""
        self.run("FLUSHALL")


@contextmanager
def redis_server(
    kind: Kind = "valkey",
    *args: str,
    password: str | None = None,
    users: Mapping[str, str] | None = None,
    maxmemory: str | None = None,
    unix_socket: bool = False,
    config: tuple[str, ...] = (),
) -> Iterator[RedisServer]:
    """A started server; see RedisServer."""
    server = RedisServer(
        kind,
        *args,
        password=password,
        users=users,
        maxmemory=maxmemory,
        unix_socket=unix_socket,
        config=config,
    )
    with running(server):
        yield server
