"""Our errors in a dress that the OpenAI SDK lets through.

The SDK retries what a call raises and wraps it as a connection error, except for its own OpenAIError. An
offline miss or a bad Cache-Control must neither be retried nor disguised, so it is raised as a class that
is both.
"""

from __future__ import annotations

from openai import OpenAIError

from askonce import AskOnceError, ConfigurationError, OfflineMiss


class OfflineMissInOpenAI(OfflineMiss, OpenAIError):
    """OfflineMiss, as it leaves an OpenAI client."""


class ConfigurationErrorInOpenAI(ConfigurationError, OpenAIError):
    """ConfigurationError, as it leaves an OpenAI client."""


def dressed(error: AskOnceError) -> AskOnceError:
    """The same error as a class that the SDK passes on unchanged."""
    if isinstance(error, OfflineMiss):
        return OfflineMissInOpenAI(str(error), key=error.key, differences=error.differences)
    if isinstance(error, ConfigurationError):
        return ConfigurationErrorInOpenAI(str(error))
    return error
