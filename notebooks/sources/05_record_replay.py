# %% [markdown]
# # Record and replay, for tests
#
# A test that asks a model is slow, costs money and needs a key. `replay(...)` records what the provider answers into a
# file that you commit, and from then on nobody is asked. Here the provider is `FakeProvider`, which takes half a second
# to think; it will be stopped soon.

# %%
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import httpx
import matplotlib.pyplot as plt
from openai import OpenAI

from askonce import OfflineMiss, replay
from askonce.testing import FakeProvider

folder = tempfile.TemporaryDirectory()
home = os.getcwd()
os.chdir(folder.name)
provider = FakeProvider(delay=0.5).start()
provider.reply("Because short waves of light are scattered more than long ones.")
client = OpenAI(base_url=provider.base_url, api_key="a-credential-of-yours", max_retries=0)


def ask(question, **more):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **more)


def timed(function):
    begun = perf_counter()
    result = function()
    print(f"{1000 * (perf_counter() - begun):.0f} ms")
    return result


# %% [markdown]
# ## Record
#
# Any code may stand in the block; `enable_cache()` is not needed. A stream is recorded as the stream it was.


# %%
def program():
    print(ask("Why is the sky blue?").choices[0].message.content)
    chunks = list(ask("Why is grass green?", stream=True))
    print(len(chunks), "events:", "".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    return chunks


with replay("sky.json"):
    live = timed(program)
print("provider calls:", provider.calls)

# %% [markdown]
# ## The file
#
# JSON for people: a prompt shows as its first line, answers in full, so that a changed answer is a readable diff. What
# is long or not yours to show is a digest, and credentials are not in it.

# %%
text = Path("sky.json").read_text("utf-8")
for recorded in json.loads(text)["recordings"]:
    request, answer = recorded["request"], recorded["answer"]
    print(request["surface"], request["model"], "|", request["about"])
    print("   parts:", {name: part for name, part in request["parts"].items() if name != "url"})
    body = answer["body"]
    said = body["json"]["choices"][0] if "json" in body else f"{len(body['lines'])} lines of a stream"
    print("   answer:", answer["status"], said)
print("a-credential-of-yours" in text)

# %% [markdown]
# ## Replay
#
# The provider is gone. The same lines give the same answers: the same id, the same events of the stream.

# %%
address = provider.base_url
provider.close()
with replay("sky.json", mode="replay") as recording:
    again = timed(program)
print("same events:", again == live, "| not used:", list(recording.unused))

# %% [markdown]
# ## A changed prompt
#
# With `mode="replay"` an ask without a recording fails the block, also when the program swallows the error, as here.
# The error says what differs from the nearest recording.


# %%
def fails(question, **more):
    try:
        with replay("sky.json", mode="replay"):
            try:
                ask(question, **more)
            except Exception:
                print("swallowed by the program")
    except OfflineMiss as miss:
        print("OfflineMiss:", *miss.differences)


fails("Why is the sky blue today?")
fails("Why is the sky blue?", temperature=0.2)

# %% [markdown]
# ## Recorded at one door, replayed at another
#
# What is recorded is what goes over the wire, not an SDK's objects. Here httpx asks what the OpenAI client asked;
# LangChain's `ChatOpenAI` and other versions of an SDK are answered in the same way.

# %%
body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
with replay("sky.json", mode="replay") as recording, httpx.Client() as other:
    response = other.post(f"{address}/chat/completions", json=body)
    body["messages"][0]["content"], body["stream"] = "Why is grass green?", True
    streamed = other.post(f"{address}/chat/completions", json=body)
print(response.json()["choices"][0]["message"]["content"])
print(streamed.text.count("data: "), "events, then", streamed.text.split()[-1])
print([outcome.status for outcome in recording.outcomes])

# %% [markdown]
# ## With pytest
#
# The plugin comes with askonce. Each test has a file of its own in `recordings/`, and nothing in the tests tells of it.

# %%
Path("test_answers.py").write_text(
    """
import os
import pytest
from openai import OpenAI

TOPICS = ["light", "rain", "tides", "snow", "wind", "heat"]

@pytest.mark.parametrize("topic", TOPICS)
def test_an_answer_has_words(topic):
    with OpenAI(base_url=os.environ["PROVIDER"], api_key="any", max_retries=0) as client:
        question = os.environ.get("QUESTION", "Explain") + " " + topic
        messages = [{"role": "user", "content": question}]
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert len(answer.choices[0].message.content.split()) > 3
"""
)
provider = FakeProvider(delay=0.5).start()
# Only the plugin that is shown: others that happen to be installed take seconds to load.
environment = {**os.environ, "PROVIDER": provider.base_url, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLUGINS = ["-p", "askonce.pytest_plugin", "-p", "no:cacheprovider"]
seconds = {}


def pytest(*arguments, **more):
    begun = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", *PLUGINS, *arguments],
        env={**environment, **more},
        capture_output=True,
        text=True,
    )
    seconds[arguments[:1] or ("no option",)] = perf_counter() - begun
    return done.stdout


print(pytest().splitlines()[-1].partition(" in ")[0], "| provider calls:", provider.calls)
print(pytest("--askonce=record").splitlines()[-1].partition(" in ")[0], "| provider calls:", provider.calls)
print(
    *sorted(str(path.relative_to(folder.name)) for path in Path(folder.name).glob("recordings/**/*.json")),
    sep="\n",
)

# %% [markdown]
# From now on for CI: no key, no network, no provider.

# %%
provider.close()
print(pytest("--askonce=replay").splitlines()[-1].partition(" in ")[0])

# %%
figure, axes = plt.subplots(figsize=(8, 2.4))
names = [name for (name,) in seconds]
bars = axes.barh(names, list(seconds.values()), color=["#c9922e", "#c9922e", "#1f8a5b"])
axes.bar_label(bars, fmt="%.1f s", padding=4)
axes.invert_yaxis()
axes.set(xlabel="seconds, the start of Python included", xlim=(0, max(seconds.values()) * 1.15))
axes.set_title("Six tests, half a second of thought for each", loc="left", weight="bold")
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="x", alpha=0.25)
plt.show()

# %% [markdown]
# Somebody changes the prompt and forgets to record. The tests say so, and what to do.

# %%
failed = pytest("--askonce=replay", "-k", "rain", "--tb=line", QUESTION="Describe")
reason = next(line for line in failed.splitlines() if "has no answer" in line)
print("has no answer" + reason.partition("has no answer")[2].partition("; nearest")[0])
print(reason.partition("which differs in ")[2])
print(failed.splitlines()[-1].partition(" in ")[0])

# %%
client.close()
os.chdir(home)
folder.cleanup()
