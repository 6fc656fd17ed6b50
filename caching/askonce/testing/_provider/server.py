"""The face of the fake provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from askonce._errors import not_allowed
from askonce.testing._provider import vectors
from askonce.testing._provider.desk import Desk, Reply
from askonce.testing._provider.wire import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from askonce.testing._provider.faults import Fault
    from askonce.testing._provider.records import RecordedRequest


class FakeProvider:
    """A provider on loopback, for tests, demos and benchmarks.

    ```python
    with FakeProvider() as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="test")
        provider.script(Fault(status=429, retry_after=0.01))
        client.chat.completions.create(model="gpt-4o", messages=[...])
        assert provider.calls == 2  # the refused call and the SDK's retry
    ```

    Answers chat completions, completions, responses, embeddings, moderations, images, speech,
    transcriptions, translations and the list of models, plain and streamed, under any path prefix
    (`/v1`, `/openai/v1`, `/openai/deployments/<name>`); and what the SDKs of Anthropic, Google (Gemini),
    Cohere (versions 1 and 2), Ollama and Hugging Face ask, in their own protocols, under `url`.

    Every answer has an id, an `x-request-id`, a `created` and a text of its own, so that an answer from a
    cache can be told from a second one of the provider; embeddings and moderations depend on their input
    alone.

    Tools are called when the prompt names them or says "tool", or when `tool_choice` demands it.

    All methods may be called from any thread, at any time. Connections that are open when the
    provider closes are closed without an answer.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        chunk_delay: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        keep_requests: int | None = 10_000,
    ) -> None:
        """Describe a provider; `start` or `with` opens it.

        Args:
            delay: seconds before each answer's status line.
            chunk_delay: seconds between the events of a stream.
            host: the address to listen on.
            port: the port to listen on; 0: any free one, the same again after a restart.
            keep_requests: how many of the latest requests `requests` keeps; None: all.
        """
        for name, value in (("delay", delay), ("chunk_delay", chunk_delay), ("port", port)):
            if value < 0:
                raise not_allowed(name, value, "0 or more")
        self._host = host
        self._port = port
        self._desk = Desk(delay=delay, chunk_delay=chunk_delay, keep_requests=keep_requests)
        self._server: Server | None = None

    def __repr__(self) -> str:
        where = "closed" if self._server is None else self.url
        return f"<FakeProvider {where} calls={self.calls}>"

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> Self:
        """Open the provider; again after `close`, on the same port and with all it knew."""
        if self._server is None:
            server = Server(self._host, self._port, self._desk)
            self._port = server.server_port
            server.start()
            self._server = server
        return self

    def close(self) -> None:
        """Stop answering and end every connection and thread. Closing twice does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The root, such as "http://127.0.0.1:40000". It outlives `close`, as the port does."""
        if not self._port:
            raise RuntimeError("the provider has no port yet: call start() or enter it with `with`")
        return f"http://{self._host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What an SDK takes as `base_url`: the root and "/v1"."""
        return f"{self.url}/v1"

    # -- what it saw ---------------------------------------------------------------------------

    @property
    def calls(self) -> int:
        """POST calls to endpoints that came in so far, whatever became of them."""
        return self._desk.calls

    def calls_to(self, path_suffix: str) -> int:
        """The calls to one endpoint.

        Args:
            path_suffix: how its path ends, such as "/chat/completions" or "speech". The full name
                of an endpoint means it alone: "/completions" leaves out the chat.
        """
        return self._desk.calls_to(path_suffix)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The latest requests, oldest first, those to unknown paths included."""
        return self._desk.records

    @property
    def in_flight(self) -> int:
        """Calls that came in and are not completely answered."""
        return self._desk.in_flight

    @property
    def max_in_flight(self) -> int:
        """The most calls that were in flight at one time."""
        return self._desk.max_in_flight

    @property
    def hangups(self) -> int:
        """Calls whose client closed the connection before it had the whole answer."""
        return self._desk.hangups

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        return self._desk.open_connections

    @property
    def connections(self) -> int:
        """Connections opened so far."""
        return self._desk.connections

    @property
    def pending_steps(self) -> int:
        """Scripted steps that no call has drawn yet."""
        return self._desk.pending_steps

    def reset(self) -> None:
        """Forget requests, figures, scripts and the reply, and release what is held.

        The numbers in ids and texts go on, so that no answer repeats an earlier one.
        """
        self._desk.reset()

    def wait_until(self, condition: Callable[[], bool], *, timeout: float = 5.0) -> None:
        """Wait until something about the provider is so, without polling.

        Args:
            condition: looked at after every change of the figures here, on the caller's thread.
            timeout: seconds; after them TimeoutError is raised, with the figures.
        """
        if not self._desk.wait_until(condition, timeout):
            raise TimeoutError(
                f"not so within {timeout:g} s: calls={self.calls} in_flight={self.in_flight} "
                f"hangups={self.hangups} open_connections={self.open_connections}"
            )

    def wait_for_calls(self, count: int, *, timeout: float = 5.0) -> None:
        """Wait until `calls` is at least `count`; TimeoutError after `timeout` seconds."""
        self.wait_until(lambda: self.calls >= count, timeout=timeout)

    # -- what it does --------------------------------------------------------------------------

    def script(self, *steps: Fault) -> None:
        """Queue behaviours, one for each of the next calls; they add to what is queued."""
        self._desk.script(steps)

    def always(self, step: Fault) -> None:
        """Set the behaviour of every call that draws no scripted step; it replaces the last one."""
        self._desk.always(step)

    def clear(self) -> None:
        """Forget `script` and `always`. Calls under way keep what they drew."""
        self._desk.clear()

    def reply(self, reply: Reply) -> None:
        """Set what text answers say: chat, completions, responses, transcriptions.

        Args:
            reply: a text; a function from the request to a text, called on the connection's thread;
                or None for the built-in text, which differs from answer to answer. A set reply goes
                before structured output and tool calls.
        """
        self._desk.reply(reply)

    def hold(self, *, after: int | None = None) -> None:
        """Keep calls that come in from now on waiting until `release`.

        Args:
            after: where in the body, in events for streams and bytes otherwise; None: before the
                status line.
        """
        self._desk.hold(after)

    def release(self) -> None:
        """Let go of every call that is in now: held, hanging or paused. Later calls go through."""
        self._desk.release()

    @staticmethod
    def embedding_of(item: str | list[int], *, dimensions: int = 1536) -> list[float]:
        """The vector that the provider answers for one input: of length 1, in single precision."""
        return vectors.embedding_of(item, dimensions=dimensions)
