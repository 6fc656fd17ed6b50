"""Questions whose answer depends on a world that changes: the provider looks something up, or runs code."""

from __future__ import annotations

import re
from typing import Any, Final

from askonce._surface import objects

# Tools by their type (OpenAI, Anthropic with a date behind it, xAI, Mistral).
_TYPES: Final = (
    "web_search", "web_fetch", "x_search", "file_search", "mcp", "code_interpreter", "code_execution",
    "computer", "shell", "local_shell",
)  # fmt: skip
# Tools by the one member they have (Gemini), without underscores and in lower case.
_MEMBERS: Final = frozenset({
    "googlesearch", "googlesearchretrieval", "googlemaps", "urlcontext", "codeexecution", "filesearch",
    "enterprisewebsearch", "retrieval", "computeruse", "mcpservers",
})  # fmt: skip
# Fields that ask for the same: OpenAI, xAI, Anthropic, Cohere, DashScope.
_FIELDS: Final = (
    "web_search_options", "search_parameters", "mcp_servers", "container", "connectors", "enable_search",
)  # fmt: skip
_NOTHING: Final[tuple[Any, ...]] = (None, False, [])
# Models that search by themselves: OpenAI, Groq, Perplexity, OpenRouter.
_MODELS: Final = re.compile(
    r"search-preview|search-api|deep-research|^(?:groq/)?compound\b|^(?:perplexity/)?(?:pplx|sonar)|:online$"
)


def reads_the_world(fields: dict[str, Any], model: str) -> bool:
    """Whether the provider would look at more than the question."""
    if _MODELS.search(model) or any(fields.get(name) not in _NOTHING for name in _FIELDS):
        return True
    if any(plugin.get("id") == "web" for plugin in objects(fields.get("plugins"))):  # OpenRouter
        return True
    tools = fields.get("tools")
    return bool(tools) and any(map(_looks, objects(tools)))


def _looks(tool: dict[str, Any]) -> bool:
    kind = tool.get("type")
    if isinstance(kind, str):
        return kind.startswith(_TYPES)
    return any(name.replace("_", "").lower() in _MEMBERS for name in tool)
