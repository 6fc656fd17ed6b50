"""Fail open: a port whose trouble never reaches the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from askonce._bridge import Port
from askonce.stores.protocol import Health, Item, Stored

Trouble: TypeAlias = Callable[[str, str, Exception], None]
"""Told of every failure: store name, operation, exception."""


class Guarded:
    """A port over another that answers "nothing there" when the other one fails.

    `CancelledError` and other signals that are no `Exception` pass through.
    """

    __slots__ = ("_port", "_trouble", "name")

    def __init__(self, port: Port, trouble: Trouble) -> None:
        self._port = port
        self._trouble = trouble
        self.name = port.name

    async def get(self, key: str) -> Stored | None:
        try:
            return await self._port.get(key)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the call goes on
            self._trouble(self.name, "get", error)
            return None

    async def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        try:
            await self._port.set(key, value, expires_at)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "set", error)

    async def delete(self, *keys: str) -> int:
        try:
            return await self._port.delete(*keys)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "delete", error)
            return 0

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        try:
            return await self._port.get_many(keys)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "get_many", error)
            return {}

    async def set_many(self, items: Iterable[Item]) -> None:
        try:
            await self._port.set_many(items)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "set_many", error)

    async def scan(self, prefix: str) -> list[str]:
        return await self._port.scan(prefix)  # administration, not a call: the operator wants to see trouble

    async def ping(self) -> Health:
        return await self._port.ping()

    async def close(self) -> None:
        await self._port.close()
