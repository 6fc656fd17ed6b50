"""What the tests of the LangChain door share."""

from __future__ import annotations

import uuid

import pytest

pytest.importorskip("langchain_openai")

import langchain_anthropic._client_utils as anthropic_clients
import langchain_openai.chat_models._client_utils as openai_clients
from langchain_core.globals import set_llm_cache

from askonce_httpx._wrap import _clients_in


@pytest.fixture(autouse=True)
async def models():
    """Models to be closed: LangChain keeps their HTTP clients for all models, and for all event loops."""
    made = []
    yield made
    set_llm_cache(None)
    for model in made:
        for client in _clients_in(model):
            if hasattr(client, "aclose"):
                await client.aclose()
            else:
                client.close()
    for module in (openai_clients, anthropic_clients):
        for kept in vars(module).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()


@pytest.fixture
def store_of(tmp_path, request, monkeypatch):
    """The URL, or the URLs, of a store by its kind; real servers behind."""

    def made(kind):
        if kind == "memory":
            return "memory://"
        if kind == "disk":
            return f"disk://{tmp_path}/{uuid.uuid4().hex}"
        if kind == "tiered":
            return ["memory://", f"disk://{tmp_path}/{uuid.uuid4().hex}"]
        if kind == "redis":
            return request.getfixturevalue("valkey").url
        server = request.getfixturevalue("s3")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        return f"s3://{server.create_bucket()}/p?endpoint_url={server.endpoint_url}&write=through"

    return made
