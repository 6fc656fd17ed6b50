"""What a Redis says of itself, read for people."""

from __future__ import annotations

from typing import Any, Final, cast

from askonce.stores._redis_wire import Command
from askonce.stores.protocol import Health

PING: Final[Command] = ("PING",)
QUESTIONS: Final[tuple[Command, ...]] = (("INFO",), ("TIME",), ("CONFIG GET", "save"))
_SKEW: Final = 2.0


def unreachable(error: Exception, latency: float) -> Health:
    """The health of a server that does not answer, without the error's text, which may name a user."""
    name = type(error).__name__
    hint = {
        "AuthenticationError": "check user and password",
        "ConnectionError": "check host, port, TLS and whether it runs",
        "TimeoutError": "check the network, or give a longer timeout",
    }.get(name, "see askonce.stores.RedisStore")
    return Health(ok=False, kind="redis", latency=latency, warnings=(f"no answer ({name}): {hint}",))


def health(replies: list[Any], latency: float, now: float) -> Health:
    """The health in the replies to PING and QUESTIONS; a question that may not be asked is left out."""
    pong, said, clock, config = replies
    info = _info(said)
    server = "valkey" if "valkey_version" in info or info.get("server_name") == "valkey" else "redis"
    version = info.get("valkey_version") or info.get("redis_version", "")
    limit = int(info.get("maxmemory", "0") or 0)
    policy = info.get("maxmemory_policy", "")
    warnings: list[str] = []
    if isinstance(pong, Exception):
        warnings.append(f"PING is refused ({type(pong).__name__}): check the user's rights")
    if info and not limit:
        warnings.append(
            "maxmemory is not set: it grows until the machine is full; set maxmemory and allkeys-lfu"
        )
    if limit and policy == "noeviction":
        warnings.append(
            "maxmemory-policy is noeviction: when it is full, answers are not stored; set allkeys-lfu"
        )
    if _saves_nothing(info, config):
        warnings.append("no persistence: a restart empties the cache; set save or appendonly")
    if info.get("role") == "slave":
        warnings.append("this server is a replica: nothing can be stored; give the master's address")
    skew = _skew(clock, now)
    if skew is not None and abs(skew) > _SKEW:
        warnings.append(f"its clock is {skew:+.0f} s off ours: set both by NTP")
    detail: dict[str, str | int | float | None] = {
        "version": version,
        "mode": info.get("redis_mode", info.get("server_mode", "")),
        "used_memory": int(info.get("used_memory", "0") or 0),
        "maxmemory": limit,
        "maxmemory_policy": policy,
        "clock_skew": skew,
    }
    return Health(
        ok=not isinstance(pong, Exception),
        kind=f"{server} {version}".strip(),
        latency=latency,
        detail=detail,
        warnings=tuple(warnings),
    )


def _info(said: Any) -> dict[str, str]:
    """INFO as a connection gives it (text), a client (one object), or a Cluster's (one for each node)."""
    if isinstance(said, bytes):
        lines = said.decode("utf-8", "replace").splitlines()
        return {name: value for name, found, value in (line.partition(":") for line in lines) if found}
    if isinstance(said, dict):
        found = cast("dict[Any, Any]", said)
        if (
            found
            and all(isinstance(value, dict) for value in found.values())
            and "redis_version" not in found
        ):
            return _info(next(iter(found.values())))
        return {str(name): str(value) for name, value in found.items()}
    return {}


def _saves_nothing(info: dict[str, str], config: Any) -> bool:
    if isinstance(config, dict):
        save: Any = next(iter(cast("dict[Any, Any]", config).values()), None)
    elif isinstance(config, list) and len(cast("list[Any]", config)) > 1:
        save = cast("list[Any]", config)[1]
    else:
        return False  # not allowed to ask
    return save in {b"", ""} and info.get("aof_enabled") == "0"


def _skew(clock: Any, now: float) -> float | None:
    """Seconds that the server is ahead."""
    try:
        seconds, micros = clock
        return int(seconds) + int(micros) / 1e6 - now
    except (TypeError, ValueError):
        return None
