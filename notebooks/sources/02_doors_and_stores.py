# %% [markdown]
# # Doors and stores
#
# A *door* is where calls come in: the OpenAI SDK, any httpx client, LangChain. A *store* is where answers are.
# Every door takes the same `Cache`, and the doors that speak HTTP share their entries.

# %%
import tempfile
from pathlib import Path
from time import perf_counter

import httpx
import matplotlib.pyplot as plt
from openai import OpenAI

from askonce import Cache, track
from askonce.testing import FakeProvider
from askonce_httpx import CacheTransport
from askonce_openai import enable_cache

provider = FakeProvider(delay=0.2).start()
folder = tempfile.TemporaryDirectory()
disk = f"disk://{Path(folder.name).as_posix()}"
cache = enable_cache(Cache(["memory://", disk]))
question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Name a prime number."}]}

# %% [markdown]
# ## One question through two doors
#
# First the SDK, then a plain HTTP client: one provider call.

# %%
client = OpenAI(base_url=provider.base_url, api_key="any")
plain = httpx.Client(transport=CacheTransport(cache), headers={"authorization": "Bearer any"})
with track() as outcomes:
    through_sdk = client.chat.completions.create(**question)
    through_http = plain.post(f"{provider.base_url}/chat/completions", json=question)
print([outcome.status for outcome in outcomes], "| provider calls:", provider.calls)
print("same answer:", through_http.json()["id"] == through_sdk.id)
print("Cache-Status:", through_http.headers["cache-status"].split("; key=")[0])

# %% [markdown]
# ## LangChain
#
# A LangChain model stands on an SDK, so it needs no door of its own. `LangChainCache` is for models that speak no HTTP.

# %%
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="gpt-4o-mini", base_url=provider.base_url, api_key="any")
with track() as outcomes:
    model.invoke("Name a colour.")
    model.invoke("Name a colour.")
print([outcome.status for outcome in outcomes])

# %% [markdown]
# ## Stores
#
# The list is front first: memory answers, the disk remembers. What another process stored on the disk is copied to the
# front when it is first read.

# %%
with (
    Cache(["memory://", disk]) as other,
    httpx.Client(transport=CacheTransport(other), headers={"authorization": "Bearer any"}) as elsewhere,
    track() as outcomes,
):
    for _ in range(3):
        elsewhere.post(f"{provider.base_url}/chat/completions", json=question)
print([outcome.tier for outcome in outcomes])

# %% [markdown]
# How long does a hit take, by store? The middle line is the median of 200.


# %%
def hits(store):
    with Cache(store) as one, httpx.Client(transport=CacheTransport(one)) as asking, track() as seen:
        for _ in range(201):
            asking.post(f"{provider.base_url}/chat/completions", json=question)
    return [1_000_000 * outcome.seconds for outcome in seen if outcome.status == "hit"]


with tempfile.TemporaryDirectory() as another:
    times = {"memory": hits("memory://"), "disk": hits(f"disk://{Path(another).as_posix()}")}

figure, axes = plt.subplots(figsize=(6, 3.4))
boxes = axes.boxplot(
    list(times.values()), tick_labels=list(times), widths=0.4, patch_artist=True, showfliers=False
)
for box, colour in zip(boxes["boxes"], ("#1f8a5b", "#4a7fb5")):
    box.set(facecolor=colour, alpha=0.6)
axes.set(ylabel="microseconds inside the cache", ylim=(0, None))
axes.set_title("A hit, by store", loc="left", weight="bold")
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="y", alpha=0.25)
plt.show()

# %% [markdown]
# ## Are they well?

# %%
for name, health in zip(cache.tiers, cache.ping()):
    print(f"{name:7} ok={health.ok} entries={health.detail['entries']} bytes={health.detail['bytes']}")

# %%
plain.close()
client.close()
cache.close()
provider.close()
folder.cleanup()
