"""The four asks of the demo, and what is noted about each: plain values that travel between processes."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias, cast

import openai
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from askonce import Cache, Outcome, Stats, track
from askonce_cli._errors import CommandError
from askonce_cli._troubles import is_providers, told
from askonce_openai import disable_cache, enable_cache

AskName: TypeAlias = Literal["chat", "async chat", "stream", "embedding"]
Turn: TypeAlias = Literal["first", "again", "new process"]
OnText: TypeAlias = Callable[[str], None]

# A namespace of its own: the answers of the stand-in must not meet anybody's real program in a store
# that `--store` names.
_NAMESPACE: Final = "askonce-demo"
_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question.

    Attributes:
        name: what figures are filed under.
        title: what is asked for, for the table.
        door: by which client.
        text: the question itself. Each differs, or the second would be answered by the first's answer.
    """

    name: AskName
    title: str
    door: str
    text: str


ASKS: Final = (
    Ask(name="chat", title="Chat", door="OpenAI", text="Why is the sky blue? One sentence."),
    Ask(name="async chat", title="Chat", door="AsyncOpenAI", text="Why is the sea salty? One sentence."),
    Ask(name="stream", title="Chat, streamed", door="OpenAI", text="Why do cats purr? Two sentences."),
    Ask(name="embedding", title="Embedding", door="OpenAI", text="The sky is blue and the sea is salty."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom to ask, and where answers are kept.

    Attributes:
        stores: store URLs, front tier first.
        base_url: the provider.
        api_key: None: the SDK reads it from the environment. Never a real key.
        local: the provider is on this machine's loopback: no proxy, no certificates.
        model: for chats.
        embedding_model: for the embedding.
    """

    stores: tuple[str, ...]
    base_url: str
    api_key: str | None
    local: bool
    model: str
    embedding_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What is noted about one ask.

    Attributes:
        ask: which one.
        turn: the first time, again, or from the new process.
        seconds: until the caller had the whole answer.
        first_chunk: seconds until a stream's first chunk; None where there is no stream.
        source: "provider", or the store that answered.
        reason: askonce's reason, such as "fresh" or "not stored".
        not_stored: why the answer was not kept; "" when it was.
        provider_calls: calls that reached the provider; retries count.
        tokens_spent: tokens that the provider charges.
        tokens_saved: tokens that it does not.
        seconds_saved: the time that the original call took.
        digest: of the answer, for comparing across processes.
    """

    ask: AskName
    turn: Turn
    seconds: float
    first_chunk: float | None
    source: str
    reason: str
    not_stored: str
    provider_calls: int
    tokens_spent: int
    tokens_saved: int
    seconds_saved: float
    digest: str


class Session:
    """Two clients with the cache underneath."""

    def __init__(self, client: openai.OpenAI, async_client: openai.AsyncOpenAI, plan: Plan) -> None:
        self._client = client
        self._async_client = async_client
        self._plan = plan
        self._runner = asyncio.Runner()
        # The loop and the SDK's resources come into being when they are first touched: no time of an ask.
        self._runner.get_loop()
        _ = client.chat.completions, client.embeddings, async_client.chat.completions

    @property
    def host(self) -> str:
        """Where the provider is, without anything secret."""
        url = self._client.base_url
        host = url.host or "no host at all"
        return host if url.port is None else f"{host}:{url.port}"

    def close(self) -> None:
        """Close what belongs to the event loop, and the loop."""
        self._runner.run(self._async_client.close())
        self._runner.close()

    def ask(self, ask: Ask, turn: Turn, on_text: OnText | None = None) -> tuple[Answered, Any]:
        """Ask once.

        Args:
            ask: the question.
            turn: which time it is.
            on_text: is given a stream's words as they come.

        Returns:
            What is noted, and the answer as plain values, to compare.

        Raises:
            CommandError: when the provider does not answer.
        """
        with track() as outcomes:
            started = perf_counter()
            try:
                answer, first_chunk = self._answer(ask, on_text)
            except Exception as error:
                if is_providers(error):
                    raise told(error, self.host) from error
                raise
            took = perf_counter() - started
        plain = _plain(answer)
        if plain is None:
            raise CommandError(
                f"{self.host} answered something that is no {ask.title.lower()}; check OPENAI_BASE_URL"
            )
        return _noted(ask, turn, outcomes, plain, took=took, first_chunk=first_chunk), plain

    def _answer(self, ask: Ask, on_text: OnText | None) -> tuple[object, float | None]:
        match ask.name:
            case "chat":
                return self._client.chat.completions.create(
                    model=self._plan.model, messages=[{"role": "user", "content": ask.text}]
                ), None
            case "async chat":
                call = self._async_client.chat.completions.create(
                    model=self._plan.model, messages=[{"role": "user", "content": ask.text}]
                )
                # A runner runs in the context it was made in, unless it is told ours, with its track().
                return self._runner.run(_awaited(call), context=contextvars.copy_context()), None
            case "stream":
                return self._stream(ask, on_text)
            case "embedding":
                return self._client.embeddings.create(model=self._plan.embedding_model, input=ask.text), None

    def _stream(self, ask: Ask, on_text: OnText | None) -> tuple[list[ChatCompletionChunk], float | None]:
        chunks: list[ChatCompletionChunk] = []
        first_chunk: float | None = None
        started = perf_counter()
        with self._client.chat.completions.create(
            model=self._plan.model,
            messages=[{"role": "user", "content": ask.text}],
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            for chunk in stream:
                if first_chunk is None:
                    first_chunk = perf_counter() - started
                chunks.append(chunk)
                if on_text is not None and chunk.choices:
                    on_text(chunk.choices[0].delta.content or "")
        return chunks, first_chunk


@contextmanager
def session(plan: Plan) -> Generator[Session]:
    """Enable the cache in this process, for as long as the block lasts.

    Raises:
        CommandError: when no client can be made.
        ConfigurationError: for a store URL that is none.
    """
    options: dict[str, Any] = {"base_url": plan.base_url, "api_key": plan.api_key, "timeout": _PATIENCE}
    transport: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": _PATIENCE}
    with ExitStack() as stack:
        cache = stack.enter_context(Cache(list(plan.stores), namespace=_NAMESPACE))
        enable_cache(cache)
        stack.callback(disable_cache)
        try:
            client = openai.OpenAI(
                **options, http_client=openai.DefaultHttpxClient(**transport) if plan.local else None
            )
            stack.callback(client.close)
            async_client = openai.AsyncOpenAI(
                **options, http_client=openai.DefaultAsyncHttpxClient(**transport) if plan.local else None
            )
        except openai.OpenAIError as error:
            raise CommandError(
                "no client for the provider can be made; check the OPENAI_* variables"
            ) from error
        made = Session(client, async_client, plan)
        stack.callback(made.close)
        yield made


async def _awaited(call: Any) -> object:
    return await call


def _plain(answer: object) -> Any:
    """An answer as plain values; None when it is none, as from a web server that is no provider."""
    if isinstance(answer, (ChatCompletion, CreateEmbeddingResponse)):
        return answer.model_dump()
    if isinstance(answer, list):
        return [chunk.model_dump() for chunk in cast(list[ChatCompletionChunk], answer)] or None
    return None


def _noted(
    ask: Ask, turn: Turn, outcomes: list[Outcome], plain: Any, *, took: float, first_chunk: float | None
) -> Answered:
    last = outcomes[-1]
    tokens = Stats(usage_saved=last.usage).tokens_saved
    text = json.dumps(plain, sort_keys=True)
    return Answered(
        ask=ask.name,
        turn=turn,
        seconds=took,
        first_chunk=first_chunk,
        # A coalesced answer has no tier; nothing here runs at the same time, but a status is always true.
        source=(last.tier or last.status) if last.served else "provider",
        reason=last.reason,
        not_stored=last.not_stored,
        provider_calls=sum(not outcome.served for outcome in outcomes),
        tokens_spent=0 if last.served else tokens,
        tokens_saved=tokens if last.served else 0,
        seconds_saved=last.saved,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
