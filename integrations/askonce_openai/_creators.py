"""The methods at which a call of the SDK begins, and which have a short way."""

from __future__ import annotations

import sys
from typing import NamedTuple


class Place(NamedTuple):
    """A module of the SDK, and the classes in it that have such a `create`: the sync and the async one."""

    module: str
    kind: str
    async_kind: str

    def classes(self) -> tuple[type, type] | None:
        """Both of them; None while nobody has loaded the module. That takes the SDK a while."""
        module = sys.modules.get(self.module)
        kind, async_kind = getattr(module, self.kind, None), getattr(module, self.async_kind, None)
        return None if kind is None or async_kind is None else (kind, async_kind)


PLACES = (
    Place("openai.resources.chat.completions", "Completions", "AsyncCompletions"),
    Place("openai.resources.responses", "Responses", "AsyncResponses"),
    Place("openai.resources.embeddings", "Embeddings", "AsyncEmbeddings"),
    Place("openai.resources.completions", "Completions", "AsyncCompletions"),
)
