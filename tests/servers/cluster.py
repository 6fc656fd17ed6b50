"""A real cluster: masters and replicas that vote, fail over and move slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from servers.binaries import Kind
from servers.process import running, wait_until
from servers.redis import RedisServer, impatient

__all__ = ["Cluster", "Node", "cluster"]

SLOTS = 16_384


class Node(RedisServer):
    """One node. Its folder keeps what it knows of the cluster, so a restart is a return."""

    @property
    def id(self) -> str:
        """The node's id in the cluster."""
        return self.run("CLUSTER", "MYID").decode()

    @property
    def is_master(self) -> bool:
        """Whether it says that it is a master; False when it says nothing."""
        return self.role() == "master"

    def role(self) -> str | None:
        """Its own word: "master", "slave", or None when it does not answer."""
        if not self.alive or self.paused:
            return None
        try:
            return self.run("ROLE")[0].decode()
        except redis.RedisError:
            return None

    def state(self) -> dict[str, Any]:
        """CLUSTER INFO, with text as values."""
        answer = self.run("CLUSTER", "INFO")
        lines = answer.decode().split() if isinstance(answer, bytes) else None
        return answer if lines is None else dict(line.split(":", 1) for line in lines)

    def in_sync(self) -> bool:
        """Whether it is a replica that has what its master has."""
        if self.role() != "slave":
            return False
        with self.client() as client:
            return client.info("replication")["master_link_status"] == "up"


class Cluster:
    """The nodes, masters first as they were created; after a failover ask `masters` and `replicas`."""

    def __init__(self, nodes: Sequence[Node], masters: int, password: str | None) -> None:
        self.nodes = list(nodes)
        self.password = password
        self._masters = masters

    @property
    def url(self) -> str:
        """The URL of a node that runs."""
        return next(node.url for node in self.nodes if node.alive and not node.paused)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every node."""
        return [node.address for node in self.nodes]

    @property
    def masters(self) -> list[Node]:
        """Nodes that answer and say they are masters."""
        return [node for node in self.nodes if node.role() == "master"]

    @property
    def replicas(self) -> list[Node]:
        """Nodes that answer and say they are replicas."""
        return [node for node in self.nodes if node.role() == "slave"]

    def client(self, **options: Any) -> redis.RedisCluster:
        """A client that gives up early. Close it."""
        seed = next(node for node in self.nodes if node.alive and not node.paused)
        return redis.RedisCluster(
            host=seed.host, port=seed.port, password=self.password, **impatient(**options)
        )

    def master_of(self, key: str | bytes) -> Node:
        """The master that has this key."""
        slot = self._ask("CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self._ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody has slot {slot}")

    def replicas_of(self, master: Node) -> list[Node]:
        """The replicas of this master, by their own word."""
        return [node for node in self.replicas if node.run("ROLE")[2] == master.port]

    def key_on(self, master: Node, prefix: str = "key") -> str:
        """A key that this master has."""
        return next(key for number in range(SLOTS) if self.master_of(key := f"{prefix}{number}") is master)

    def failover(self, master: Node | None = None) -> Node:
        """Kill a master and return the replica that took its place, once it has."""
        old = master or self.masters[0]
        heirs = self.replicas_of(old)
        old.kill()
        wait_until(lambda: any(heir.is_master for heir in heirs), f"an heir of {old!r}", timeout=60)
        self.wait_ok()
        return next(heir for heir in heirs if heir.is_master)

    def move_slot(self, key: str | bytes, to: Node) -> None:
        """Give the slot of this key, which must be empty, to another master."""
        slot = self._ask("CLUSTER", "KEYSLOT", key)
        for node in self.masters:
            node.run("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        wait_until(lambda: self.master_of(key) is to, f"slot {slot} to move")

    def flush(self) -> None:
        """Forget all keys."""
        for node in self.masters:
            node.flush()

    def wait_ok(self, *, timeout: float = 60.0) -> None:
        """Wait until every node that runs calls the cluster ok."""
        wait_until(self._ok, "a cluster that is ok", timeout=timeout, every=0.05)

    def heal(self) -> None:
        """Start what is dead, resume what is paused, wait for masters and replicas in sync."""
        if all(node.alive and not node.paused for node in self.nodes):
            return
        for node in self.nodes:
            node.heal()
        self.wait_complete()

    def wait_complete(self, *, timeout: float = 60.0) -> None:
        """Wait until all nodes run, agree, and every replica is in sync."""
        wait_until(self._complete, "a cluster with replicas in sync", timeout=timeout, every=0.05)

    def _ok(self) -> bool:
        running = [node for node in self.nodes if node.alive and not node.paused]
        return all(node.state()["cluster_state"] == "ok" for node in running)

    def _complete(self) -> bool:
        in_sync = sum(node.in_sync() for node in self.nodes)
        return (
            len(self.masters) == self._masters and self._masters + in_sync == len(self.nodes) and self._ok()
        )

    def _ask(self, *command: Any) -> Any:
        return next(node for node in self.nodes if node.alive and not node.paused).run(*command)


@contextmanager
def cluster(
    kind: Kind = "valkey",
    *args: str,
    masters: int = 3,
    replicas: int = 1,
    node_timeout: float = 1.0,
    password: str | None = None,
) -> Iterator[Cluster]:
    """A cluster whose nodes agree and whose replicas are in sync.

    Args:
        kind: "valkey" or "redis".
        *args: Arguments of every node's command line.
        masters: Three at least can outvote a dead one.
        replicas: Of each master.
        node_timeout: Seconds of silence after which a node counts as failing.
        password: Of the default user.
    """
    config = [
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-node-timeout {int(node_timeout * 1000)}",
        # A replica is sent its data at once, not after waiting for others to join.
        "repl-diskless-sync-delay 0",
        # A failover may happen at any moment, also of a replica that heard nothing for a while.
        "cluster-replica-validity-factor 0",
    ]
    if password is not None:
        config.append(f'masterauth "{password}"')
    count = masters * (1 + replicas)
    nodes = [Node(kind, *args, password=password, config=tuple(config)) for _ in range(count)]
    made = Cluster(nodes, masters, password)
    with running(*nodes):
        _join(nodes)
        for number, node in enumerate(nodes[:masters]):
            first, end = SLOTS * number // masters, SLOTS * (number + 1) // masters
            node.run("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, node in enumerate(nodes[masters:]):
            _follow(node, nodes[number % masters])
        made.wait_complete()
        yield made


def _join(nodes: Sequence[Node]) -> None:
    for number, node in enumerate(nodes, 1):
        # Epochs given by hand: else the nodes negotiate them, one by one.
        node.run("CLUSTER", "SET-CONFIG-EPOCH", number)
    for one in nodes:
        # Each meets each: waiting for gossip to introduce them takes longer.
        for other in nodes:
            if one is not other:
                one.run("CLUSTER", "MEET", other.host, other.port)
    known = str(len(nodes))
    wait_until(lambda: all(node.state()["cluster_known_nodes"] == known for node in nodes), "nodes that met")


def _follow(node: Node, master: Node) -> None:
    """Make a node a replica, as soon as it accepts that the other is a master."""
    identity = master.id

    def accepted() -> bool:
        try:
            node.run("CLUSTER", "REPLICATE", identity)
        except redis.ResponseError:
            return False
        return True

    wait_until(accepted, f"{node!r} to follow {master!r}")
