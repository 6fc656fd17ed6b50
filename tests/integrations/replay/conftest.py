"""What the tests of record and replay share: a file, and ways to ask that need no network once recorded."""

from __future__ import annotations

import httpx
import httpx2
import openai
import pytest

KEY = "sk-a-credential-1234567890"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.json"


@pytest.fixture
def client(provider):
    """An OpenAI client that asks the provider, never twice."""
    with openai.DefaultHttpxClient(verify=False, timeout=10) as http:
        yield openai.OpenAI(base_url=provider.base_url, api_key=KEY, max_retries=0, http_client=http)


@pytest.fixture
async def aclient(provider):
    async with openai.DefaultAsyncHttpxClient(verify=False, timeout=10) as http:
        yield openai.AsyncOpenAI(base_url=provider.base_url, api_key=KEY, max_retries=0, http_client=http)


@pytest.fixture(params=[httpx, httpx2], ids=lambda package: package.__name__)
def raw(request, provider):
    """A bare client of each package, and headers as no SDK sends them."""
    with request.param.Client(
        verify=False,
        timeout=10,
        base_url=provider.url,
        headers={"authorization": f"Bearer {KEY}", "user-agent": "another SDK/9", "x-trace": "7"},
    ) as client:
        yield client


def question(text="Why is the sky blue?", **more):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def ask(client):
    """Asks a question and gives all of the answer."""

    def ask(text="Why is the sky blue?", **more):
        return client.chat.completions.create(**question(text, **more)).model_dump()

    return ask
