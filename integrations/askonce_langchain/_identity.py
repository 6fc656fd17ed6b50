"""What the vectors of an embedding model depend on, as far as the model shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias, cast

import orjson
from pydantic import BaseModel, SecretBytes, SecretStr

from askonce import ConfigurationError

Json: TypeAlias = dict[str, Any]

_NAMES: Final = ("model", "model_name", "model_id")
_PLAIN: Final = (str, int, float, bool)
# How a model is called, and who calls; every other setting is taken to change the vectors.
_HOW: Final = frozenset({
    "client", "async_client", "http_client", "http_async_client", "session", "transport", "credentials",
    "credentials_profile_name",
    "request_timeout", "timeout", "max_retries", "retry_min_seconds", "retry_max_seconds", "wait_time",
    "rate_limiter", "callbacks", "callback_manager", "openai_proxy", "proxies", "user_agent", "chunk_size",
    "batch_size", "max_concurrency", "max_concurrent_requests", "multi_process", "show_progress",
    "show_progress_bar", "verbose", "cache_folder", "azure_ad_token_provider",
    "azure_ad_async_token_provider", "validate_base_url",
})  # fmt: skip
_CREDENTIALS: Final = ("api_key", "api_token", "_ad_token", "access_token", "password", "secret")
_ALLOWED: Final = 'allowed: CachedEmbeddings(..., model="what the vectors depend on")'


def identity(model: Any) -> Json:
    """The model's class, its name and its settings, to be looked at for each call: settings may change.

    Raises:
        ConfigurationError: when the model does not say its name, or has a setting that cannot be seen.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    state: Mapping[str, Any] = getattr(model, "__dict__", {})
    settings: Json = {}
    for name, value in state.items():
        if name.startswith("_") or name in _HOW or name.endswith(_CREDENTIALS) or value is None:
            continue
        if isinstance(value, SecretStr | SecretBytes):
            continue
        try:
            settings[name] = _seen(value)
        except TypeError:
            raise ConfigurationError(
                f"what the vectors of {kind} depend on cannot be seen: its {name} is a "
                f"{type(value).__name__}; {_ALLOWED}"
            ) from None
    found = next((settings[one] for one in _NAMES if settings.get(one)), None)
    if not isinstance(found, str):
        raise ConfigurationError(f"{kind} does not say which model it is; {_ALLOWED}")
    return {"model": found, "class": kind, "settings": settings}


def _seen(value: Any) -> Any:
    """The value as JSON has it.

    Raises:
        TypeError: when it is no plain data.
    """
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, BaseModel):
        return _seen(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        return {_name(name): _seen(one) for name, one in given.items()}
    if isinstance(value, AbstractSet):
        return sorted((_seen(one) for one in cast("AbstractSet[Any]", value)), key=orjson.dumps)
    if isinstance(value, list | tuple):
        return [_seen(one) for one in cast("Sequence[Any]", value)]
    raise TypeError(type(value).__name__)


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(type(value).__name__)
