"""A TCP proxy with faults, switched while it runs."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from servers.relay import Link, Relay, finish


@dataclass(frozen=True)
class Fault:
    """What is wrong now. `kind` is the name of the method that sets it."""

    kind: str = "ok"
    up: float = 0.0
    down: float = 0.0
    after: int = 0
    reset: bool = True
    size: int = 1
    every: float = 0.0


class ChaosProxy(Relay):
    """A proxy in front of one address. Each fault replaces the one before, for all connections at once.

    Downstream is from the server to the client. A connection's end is as subject to a fault as its data.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._fault = Fault()
        self._random = random.Random(0)
        self._changed: asyncio.Event | None = None

    @property
    def mode(self) -> str:
        """The fault's name; "ok" for none."""
        return self._fault.kind

    def ok(self) -> None:
        """Forward. What a black hole held back arrives now."""
        self._set(Fault())

    def refuse(self) -> None:
        """Reset new connections as they are made; open ones go on."""
        self._set(Fault("refuse"))

    def black_hole(self) -> None:
        """Accept, and forward nothing in either direction; nobody is told that the other side closed."""
        self._set(Fault("black_hole"))

    def latency(self, up: float = 0.0, down: float = 0.0) -> None:
        """Everything arrives this many seconds later. Bandwidth stays."""
        self._set(Fault("latency", up=up, down=down))

    def cut(self, after: int, *, reset: bool = True) -> None:
        """After this many more bytes downstream each connection is reset, or ends as if complete."""
        self._set(Fault("cut", after=after, reset=reset))

    def garbage(self) -> None:
        """Downstream, every byte but line ends becomes one that no text protocol uses."""
        self._set(Fault("garbage"))

    def trickle(self, size: int = 1, every: float = 0.05) -> None:
        """Downstream, this many bytes each so many seconds."""
        self._set(Fault("trickle", size=size, every=every))

    def half_open(self) -> None:
        """The connections of now forward nothing ever again and nobody is told; new ones work."""
        self._run(self._lose())

    async def _lose(self) -> None:
        for link in self._links:
            link.lost = True
        self._switch(Fault())

    def _set(self, fault: Fault) -> None:
        self._run(self._apply(fault))

    async def _apply(self, fault: Fault) -> None:
        self._switch(fault)

    def _switch(self, fault: Fault) -> None:
        self._fault = fault
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def delay(self, *, down: bool) -> float:
        return self._fault.down if down else self._fault.up

    async def admit(self, link: Link) -> None:
        if self._fault.kind == "refuse" and link.upstream is None:
            raise ConnectionAbortedError
        while link.lost or self._fault.kind == "black_hole":
            if link not in self._open:
                # The client went away unheard; nothing of it has to arrive.
                raise ConnectionAbortedError
            await self._wait(0.02)

    async def _wait(self, seconds: float) -> None:
        """Until the fault changes, at most so long."""
        self._changed = self._changed or asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def forward(self, link: Link, writer: asyncio.StreamWriter, data: bytes, *, down: bool) -> None:
        fault = self._fault
        if not down or fault.kind not in {"cut", "garbage", "trickle"}:
            await super().forward(link, writer, data, down=down)
        elif fault.kind == "cut":
            await self._cut(link, writer, data, fault)
        elif fault.kind == "garbage":
            await super().forward(link, writer, self._spoilt(data), down=down)
        else:
            await self._trickle(link, writer, data, fault)

    async def _cut(self, link: Link, writer: asyncio.StreamWriter, data: bytes, fault: Fault) -> None:
        if link.counted_for is not fault:
            link.counted_for, link.sent = fault, 0
        part = data[: fault.after - link.sent]
        link.sent += len(part)
        await super().forward(link, writer, part, down=True)
        if link.sent == fault.after:
            if not fault.reset:
                await finish(writer)
            raise ConnectionAbortedError

    def _spoilt(self, data: bytes) -> bytes:
        # Line ends stay, so that parsers get lines to fail on instead of waiting for one.
        return bytes(byte if byte in b"\r\n" else self._random.randrange(0x80, 0x100) for byte in data)

    async def _trickle(self, link: Link, writer: asyncio.StreamWriter, data: bytes, fault: Fault) -> None:
        for start in range(0, len(data), fault.size):
            if self._fault is not fault:
                # Other rules apply to the rest.
                await self.admit(link)
                await self.forward(link, writer, data[start:], down=True)
                return
            await super().forward(link, writer, data[start : start + fault.size], down=True)
            await self._wait(fault.every)
