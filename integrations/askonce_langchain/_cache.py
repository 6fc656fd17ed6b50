"""LangChain's cache protocol over an askonce Cache."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, cast

import orjson
from langchain_core.caches import BaseCache
from langchain_core.outputs import Generation

from askonce import AskOnceError, Cache, ConfigurationError, Request, using
from askonce.doors import Step, Surface, fault, register_surface, serving, warn
from askonce_langchain._generations import HEADERS, Reader, reading, written
from askonce_langchain._held import Held, OpenCalls, beneath, finished, left
from askonce_langchain._live import Caller, calling, current, patience, schemas_in
from askonce_langchain._prompts import UnkeyableError, canonical_model, canonical_prompt

# No URL of HTTP has a path without a slash: no request of another door ever comes here.
_URL: Final = "langchain:generations"
_JSON: Final = ((b"content-type", b"application/json"),)
# Fields of a call that a Policy looks at.
_LOOKED_AT: Final = ("tools", "web_search_options", "background", "conversation", "search_parameters")
_MOST_KNOWN: Final = 512  # requests of at most 16 KiB, kept to be asked again
_LARGEST: Final = 16 << 10
_ANYWHERE: Final = nullcontext()

register_surface(Surface(name="langchain", path=re.compile("^generations$"), read_json=reading, sampled=True))


class LangChainCache(BaseCache):
    """A cache for `langchain_core.globals.set_llm_cache`, or for a model's `cache=`.

    Works for `invoke`, `batch` and their async twins, of chat models and of plain ones. What streams is not
    cached by LangChain: put a cache beneath the model for that (`askonce_openai.enable_cache()`,
    `askonce_httpx.wrap_client(model)`); both together store once.

    Identical calls at one time make one provider call. Answers whose question cannot be seen whole (a class
    that stands in the parameters by name only, an object by its repr) are not cached; a warning says once
    what to do.

    Args:
        cache: the cache to use; None: a new `Cache()`.
        scope: who shares the answers, such as a tenant's name. LangChain does not tell who asks.

    Raises:
        ConfigurationError: for an argument of the wrong kind; and without `scope` for a cache with
            `scope="credential"`: credentials cannot be seen from here.
    """

    def __init__(self, cache: Cache | None = None, *, scope: str | None = None) -> None:
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigurationError(f"cache={type(cache).__name__} is not allowed; allowed: a Cache or None")
        if scope is not None and not isinstance(scope, str):
            raise ConfigurationError(f"scope={type(scope).__name__} is not allowed; allowed: a text or None")
        self.cache = cache or Cache()
        if scope is None and self.cache.scope == "credential":
            raise ConfigurationError(
                'LangChain does not tell who asks, so scope="credential" cannot be kept here; allowed: '
                'LangChainCache(cache, scope="who shares"), or a cache beneath LangChain (askonce_openai, '
                "askonce_httpx), which sees the credential"
            )
        self._scope = scope
        self._reader = Reader()
        self._requests: dict[tuple[str, str], Request] = {}
        self._open = OpenCalls()

    def __repr__(self) -> str:
        return f"<LangChainCache {self.cache!r}>"

    # -- LangChain's protocol ---------------------------------------------------------------------

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """The answer, if it is known. Else the caller is expected to come back with `update`.

        Raises:
            OfflineMiss: in offline mode, when it is not known.
        """
        try:
            caller = calling()
            who = threading.get_ident()
            self._open.sweep(who)
            request = self._request(prompt, llm_string, caller)
            if request is None:
                return None
            gone = left(who, caller and caller.frame)
            cache = serving(self.cache)
            with self._scoped():
                step = cache.begin(request, gone=gone, patience=patience(caller))
            if step.entry is not None:
                return self._answer(step)
            self._open.hold(who, (prompt, llm_string), cache, step, gone)
        except AskOnceError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours is a miss, never the caller's
            fault("a lookup failed", error)
        return None

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """The answer to what was looked up."""
        held = self._open.take(threading.get_ident(), (prompt, llm_string))
        try:
            body = self._body(held, return_val)
            if body is None:
                return
            if held is None:
                request = self._request(prompt, llm_string, calling())
                if request is None:
                    return
                cache = serving(self.cache)
                with self._scoped():
                    cache.finish(cache.begin(request, looks=False), HEADERS, body)
                return
            key, age = beneath(held.watch.stop())
            stored = bool(key) and held.cache.suffices(key)
            held.cache.finish(held.step, HEADERS, body, age=age, stores=not stored)
        except AskOnceError:
            self._open.drop(held)
        except Exception as error:  # noqa: BLE001 - the caller has its answer
            self._open.drop(held)
            fault("an answer was not stored", error)

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """`lookup`, for event loops."""
        try:
            caller = calling()
            task = asyncio.current_task()
            self._open.sweep(task)
            request = self._request(prompt, llm_string, caller)
            if request is None:
                return None
            gone = finished(task, caller and caller.frame)
            cache = serving(self.cache)
            with self._scoped():
                step = await cache.abegin(request, gone=gone, patience=patience(caller))
            if step.entry is not None:
                return self._answer(step)
            self._open.hold(task, (prompt, llm_string), cache, step, gone)
            if task is not None and step.is_open:
                task.add_done_callback(self._open.sweep)
        except AskOnceError:
            raise
        except Exception as error:  # noqa: BLE001
            fault("a lookup failed", error)
        return None

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """`update`, for event loops."""
        held = self._open.take(asyncio.current_task(), (prompt, llm_string))
        try:
            body = self._body(held, return_val)
            if body is None:
                return
            if held is None:
                request = self._request(prompt, llm_string, calling())
                if request is None:
                    return
                cache = serving(self.cache)
                with self._scoped():
                    step = await cache.abegin(request, looks=False)
                await cache.afinish(step, HEADERS, body)
                return
            key, age = beneath(held.watch.stop())
            stored = bool(key) and await held.cache.asuffices(key)
            await held.cache.afinish(held.step, HEADERS, body, age=age, stores=not stored)
        except AskOnceError:
            self._open.drop(held)
        except Exception as error:  # noqa: BLE001
            self._open.drop(held)
            fault("an answer was not stored", error)

    def clear(self, **kwargs: Any) -> None:  # noqa: ARG002 - LangChain hands others' options along
        """Remove the answers stored by this door in the cache's namespace, of all scopes."""
        self.cache.invalidate(url="langchain:*")

    async def aclear(self, **kwargs: Any) -> None:  # noqa: ARG002
        """`clear`, for event loops."""
        await self.cache.ainvalidate(url="langchain:*")

    # -- between the two halves -------------------------------------------------------------------

    def _scoped(self) -> AbstractContextManager[None]:
        return _ANYWHERE if self._scope is None else using(scope=self._scope)

    def _answer(self, step: Step) -> list[Generation] | None:
        assert step.entry is not None  # noqa: S101 - the caller has looked
        try:
            return self._reader.served(step.entry, step.outcome)
        except Exception as error:  # noqa: BLE001 - of another version, or spoilt: ask
            fault("a stored answer could not be read", error)
            return None

    def _body(self, held: Held | None, answer: Sequence[Generation]) -> bytes | None:
        try:
            return written(answer)
        except (TypeError, ValueError) as error:
            self._open.drop(held)
            warn("langchain", "an answer that JSON has no form for is not cached (%s)", type(error).__name__)
            return None

    # -- what is asked ----------------------------------------------------------------------------

    def _request(self, prompt: str, llm_string: str, caller: Caller | None) -> Request | None:
        try:
            schemas = schemas_in(caller)
            text = current(llm_string, caller)
            known = None if schemas else self._requests.get((prompt, text))
            return known or self._asked(prompt, text, schemas)
        except UnkeyableError as error:
            warn("langchain", "calls of a model are not cached: %s", str(error))
        except Exception as error:  # noqa: BLE001 - whatever LangChain hands over, the call goes on
            fault("a lookup was not understood", error)
        return None

    def _asked(self, prompt: str, llm_string: str, schemas: dict[str, Any]) -> Request:
        model = canonical_model(llm_string, frozenset(schemas))
        asked = {"messages": canonical_prompt(prompt), **model, **_looked_at(model)}
        if schemas:
            asked["schemas"] = schemas
        request = Request("POST", _URL, _JSON, _dumped(asked))
        if not schemas and len(prompt) + len(llm_string) <= _LARGEST:
            if len(self._requests) >= _MOST_KNOWN:
                self._requests.clear()
            self._requests[prompt, llm_string] = request
        return request


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _looked_at(model: dict[str, Any]) -> dict[str, Any]:
    """What a Policy wants to know, where it looks for it."""
    settings = _object(model.get("llm"))
    everything = {**settings, **_object(settings.get("model_kwargs")), **model}
    found = {name: everything[name] for name in _LOOKED_AT if everything.get(name) is not None}
    for name in ("model", "model_name", "model_id", "deployment_name", "azure_deployment"):
        if isinstance(everything.get(name), str):
            found["model"] = everything[name]
            break
    if everything.get("temperature") is not None:
        found["temperature"] = everything["temperature"]
    return found


def _dumped(asked: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(asked)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate
        import json  # noqa: PLC0415

        return json.dumps(asked, sort_keys=True).encode()
