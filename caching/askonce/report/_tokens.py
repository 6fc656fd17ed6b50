"""The providers' usage figures, under one set of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens, as they are charged.

    Attributes:
        input: all that were read: those from the provider's own prompt cache included.
        output: all that were written: those of reasoning included.
        reasoning: of the output.
        cached: of the input: read from the provider's own prompt cache.
        cache_written: of the input: written to it, where the provider charges for that.
    """

    input: int = 0
    output: int = 0
    reasoning: int = 0
    cached: int = 0
    cache_written: int = 0

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Tokens)}
        )


# Figure -> the kinds it counts as. OpenAI's details are parts of its input; Anthropic's cache figures and
# Gemini's thoughts stand beside what is called input and output there. A model is asked through one or two
# endpoints, each with names of its own: what an answer says under different names never is the same tokens.
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "prompt_tokens": ("input",),
    "input_tokens": ("input",),
    "cache_read_input_tokens": ("input", "cached"),
    "cache_creation_input_tokens": ("input", "cache_written"),
    "prompt_tokens_details.cached_tokens": ("cached",),
    "input_tokens_details.cached_tokens": ("cached",),
    "completion_tokens": ("output",),
    "output_tokens": ("output",),
    "completion_tokens_details.reasoning_tokens": ("reasoning",),
    "output_tokens_details.reasoning_tokens": ("reasoning",),
    "promptTokenCount": ("input",),
    "cachedContentTokenCount": ("cached",),
    "candidatesTokenCount": ("output",),
    "thoughtsTokenCount": ("output", "reasoning"),
}


def tokens_of(usage: Mapping[str, float], prefix: str = "") -> Tokens:
    """The tokens in summed usage figures whose names begin with a prefix."""
    found: dict[str, int] = {}
    for name, kinds in _KINDS.items():
        number = round(usage.get(prefix + name, 0))
        if number:
            for kind in kinds:
                found[kind] = found.get(kind, 0) + number
    return Tokens(**found)
