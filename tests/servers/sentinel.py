"""A master, its replica, and the sentinels that put the one in the other's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.sentinel import Sentinel as Client

from servers.binaries import Kind
from servers.process import running, wait_until
from servers.redis import RedisServer, impatient

__all__ = ["SERVICE", "Sentinel", "SentinelServer", "sentinel"]

SERVICE = "mymaster"


class SentinelServer(RedisServer):
    """One sentinel process. It writes what it learns into its configuration file."""

    def command(self) -> list[str]:
        return [*super().command(), "--sentinel"]

    def master(self) -> dict[str, Any]:
        """What this sentinel knows of the service."""
        with self.client() as client:
            return client.sentinel_master(SERVICE)


class Sentinel:
    """The whole: `master` and `replica` are who they are now, `sentinels` the watchers."""

    service = SERVICE

    def __init__(
        self,
        servers: Sequence[RedisServer],
        sentinels: Sequence[SentinelServer],
        password: str | None,
        sentinel_password: str | None,
    ) -> None:
        self.servers = list(servers)
        self.sentinels = list(sentinels)
        self.password = password
        self.sentinel_password = sentinel_password

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every sentinel."""
        return [each.address for each in self.sentinels]

    @property
    def master(self) -> RedisServer:
        """The server that the sentinels name, alive or not."""
        return self._at(self._named(self._watcher()))

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    @contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        """A client that follows the master and retries nothing."""
        secret = impatient(password=self.sentinel_password)
        watchers = Client(self.addresses, sentinel_kwargs=secret)
        try:
            with watchers.master_for(SERVICE, **impatient(password=self.password, **options)) as client:
                yield client
                client.connection_pool.disconnect()
        finally:
            for watcher in watchers.sentinels:
                watcher.close()

    def failover(self) -> RedisServer:
        """Kill the master; return the new one once all sentinels name it and it takes writes."""
        old, heir = self.master, self.replica
        old.kill()

        def promoted() -> bool:
            # Asked for the address, sentinels name the heir before they call it a master that is up.
            known = [each.master() for each in self.sentinels if each.alive and not each.paused]
            up = all(each["port"] == heir.port and each["flags"] == "master" for each in known)
            return up and heir.run("ROLE")[0] == b"master"

        wait_until(promoted, f"{heir!r} in place of {old!r}", timeout=30)
        return heir

    def wait_complete(self, *, timeout: float = 40.0) -> None:
        """Wait until the replica is in sync and every sentinel knows it and the other sentinels."""
        wait_until(self._complete, "sentinels that know all", timeout=timeout, every=0.05)

    def heal(self) -> None:
        """Start what is dead, resume what is paused, wait until all is as at first."""
        everyone = [*self.servers, *self.sentinels]
        if all(each.alive and not each.paused for each in everyone):
            return
        for each in everyone:
            each.heal()
        master, replica = self.master, self.replica
        # Sentinels would do both by themselves, in 20 seconds.
        replica.run("REPLICAOF", *master.address)
        wait_until(lambda: self._follows(replica, master), f"{replica!r} in sync")
        for each in self.sentinels:
            each.run("SENTINEL", "RESET", SERVICE)
        self.wait_complete()

    def flush(self) -> None:
        """Forget all keys."""
        self.master.flush()

    def _complete(self) -> bool:
        if len({self._named(each) for each in self.sentinels}) != 1:
            return False
        master, replica = self.master, self.replica
        if not self._follows(replica, master):
            return False
        for each in self.sentinels:
            known = each.master()
            if known["num-slaves"] < 1 or known["num-other-sentinels"] < len(self.sentinels) - 1:
                return False
            with each.client() as client:
                if not all(_usable(slave) for slave in client.sentinel_slaves(SERVICE)):
                    return False
        return master.run("ROLE")[0] == b"master"

    def _follows(self, replica: RedisServer, master: RedisServer) -> bool:
        with replica.client() as client:
            info = client.info("replication")
        state = (info["role"], info.get("master_port"), info.get("master_link_status"))
        return state == ("slave", master.port, "up")

    def _watcher(self) -> SentinelServer:
        return next(each for each in self.sentinels if each.alive and not each.paused)

    def _named(self, sentinel: SentinelServer) -> int:
        return int(sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _at(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)


def _usable(slave: dict[str, Any]) -> bool:
    return not (slave["is_sdown"] or slave["is_disconnected"]) and slave.get("master-link-status") == "ok"


@contextmanager
def sentinel(
    kind: Kind = "valkey",
    *args: str,
    sentinels: int = 3,
    down_after: float = 0.5,
    password: str | None = None,
    sentinel_password: str | None = None,
) -> Iterator[Sentinel]:
    """A master, a replica in sync, and sentinels that know each other; the service is "mymaster".

    Args:
        kind: "valkey" or "redis".
        *args: Arguments of the command lines of master and replica.
        sentinels: How many; more than half have to agree.
        down_after: Seconds of silence after which a sentinel calls a server down.
        password: Of master and replica.
        sentinel_password: Of the sentinels.
    """
    config = ["repl-diskless-sync-delay 0"]
    if password is not None:
        config.append(f'masterauth "{password}"')
    master = RedisServer(kind, *args, password=password, config=tuple(config))
    follow = f"replicaof {master.host} {master.port}"
    replica = RedisServer(kind, *args, password=password, config=(*config, follow))
    watch = [
        f"sentinel monitor {SERVICE} {master.host} {master.port} {sentinels // 2 + 1}",
        f"sentinel down-after-milliseconds {SERVICE} {int(down_after * 1000)}",
        # Half of this time after a vote without a winner, the next one follows.
        f"sentinel failover-timeout {SERVICE} 3000",
    ]
    if password is not None:
        watch.append(f'sentinel auth-pass {SERVICE} "{password}"')
    if sentinel_password is not None:
        watch.append(f'sentinel sentinel-pass "{sentinel_password}"')
    watchers = [
        SentinelServer(kind, password=sentinel_password, config=tuple(watch)) for _ in range(sentinels)
    ]
    whole = Sentinel([master, replica], watchers, password, sentinel_password)
    with running(master, replica, *watchers):
        whole.wait_complete()
        yield whole
