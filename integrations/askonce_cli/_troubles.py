"""What goes wrong with a provider, in one line that a person can act on, without a credential in it."""

from __future__ import annotations

import os
from typing import Any, Final, cast

import openai

from askonce import AskOnceError
from askonce_cli._errors import CommandError

_LONGEST: Final = 300


def is_providers(error: Exception) -> bool:
    """Whether the provider or the way to it is to blame, and not this program."""
    if isinstance(error, AskOnceError):
        return False
    # The SDK passes some errors of its HTTP client on as they are: of a stream that breaks off, of an
    # answer that is no JSON. Which of two HTTP clients it has depends on its version.
    return isinstance(error, (openai.OpenAIError, ValueError)) or type(error).__module__.startswith("httpx")


def told(error: Exception, host: str) -> CommandError:
    """The line for an error of the SDK.

    Args:
        error: what a call raised.
        host: where it went.
    """
    match error:
        case openai.APITimeoutError():
            text = f"the provider at {host} did not answer in time"
        case openai.APIConnectionError():
            text = f"the connection to the provider at {host} failed: {_root(error)}; check OPENAI_BASE_URL"
        # The SDK's own texts for these two quote the key, shortened.
        case openai.AuthenticationError():
            text = f"the provider at {host} refused the API key (401); check OPENAI_API_KEY"
        case openai.PermissionDeniedError():
            text = f"the provider at {host} does not allow this (403); check what OPENAI_API_KEY may use"
        case openai.NotFoundError():
            text = f"{_status(error, host)}; choose others with --model and --embedding-model"
        case openai.APIStatusError():
            text = _status(error, host)
        case UnicodeEncodeError():
            text = "OPENAI_API_KEY has characters that a header cannot carry; check how it was copied"
        case _:
            text = (
                f"the answer of the provider at {host} broke off or cannot be read ({type(error).__name__})"
            )
    return CommandError(text)


def _status(error: openai.APIStatusError, host: str) -> str:
    text = f"the provider at {host} answered {error.status_code}"
    body: Any = error.body
    message: Any = cast(dict[str, Any], body).get("message") if isinstance(body, dict) else None
    if isinstance(message, str) and message:
        text += f": {_clean(message)}"
    return text


def _clean(message: str) -> str:
    line = " ".join(message.split())
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key:
        line = line.replace(key, "***")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _root(error: BaseException) -> str:
    """What the operating system said; other texts may quote a header, and with it the key."""
    seen: BaseException | None = error
    name = type(error).__name__
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        name = type(seen).__name__
        seen = seen.__cause__ or seen.__context__
    return name
