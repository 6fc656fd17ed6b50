# %% [markdown]
# # Quickstart
#
# Everything here runs without a key: `FakeProvider` is a provider on this machine that takes half a second to think.
# With `OPENAI_API_KEY` set and no `base_url`, the same lines talk to the real one.

# %%
from time import perf_counter

import matplotlib.pyplot as plt
from openai import OpenAI

from askonce import Cache, track, using
from askonce.testing import FakeProvider
from askonce_openai import enable_cache

provider = FakeProvider(delay=0.5).start()
provider.reply("Because short waves of light are scattered more than long ones.")
cache = enable_cache(Cache("memory://"))
client = OpenAI(base_url=provider.base_url, api_key="any")


def ask(question, **more):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **more)


# %% [markdown]
# ## Ask, and ask again
#
# The second answer is the first one, to the byte: same id, same text. It is a new object; changing it changes nothing else.

# %%
first = ask("Why is the sky blue?")
again = ask("Why is the sky blue?")
print(again.choices[0].message.content)
print("same id:", first.id == again.id, "| same object:", first is again, "| provider calls:", provider.calls)

# %% [markdown]
# ## What happened to a call?
#
# `track()` says so for every call in its block.

# %%
with track() as outcomes:
    ask("Why is the sky blue?")  # stored
    ask("Why is grass green?")  # new
    with using(refresh=True):
        ask("Why is the sky blue?")  # asked again on purpose
    with using(mode="off"):
        ask("Why is the sky blue?")  # past the cache
for outcome in outcomes:
    print(f"{outcome.status:7} {outcome.reason:12} {'from ' + outcome.tier if outcome.tier else ''}")

# %% [markdown]
# ## What it is worth
#
# Ten calls with and without the cache. The scale is logarithmic. What a hit takes is mostly the SDK's own work.


# %%
def timed(**how):
    with using(**how):
        begun = perf_counter()
        ask("Why is the sky blue?")
        return 1000 * (perf_counter() - begun)


without = [timed(mode="off") for _ in range(10)]
with_cache = [timed() for _ in range(10)]

figure, axes = plt.subplots(figsize=(8, 2.6))
axes.scatter(without, ["provider"] * 10, color="#c9922e", s=60, alpha=0.7)
axes.scatter(with_cache, ["cache"] * 10, color="#1f8a5b", s=60, alpha=0.7)
axes.set(xscale="log", xlim=(0.5, 2000), ylim=(-0.6, 1.6), xlabel="milliseconds until the answer")
axes.set_title("The same question, ten times", loc="left", weight="bold")
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="x", alpha=0.25)
plt.show()

# %% [markdown]
# ## The cache's own account

# %%
cache.stats()

# %%
client.close()
cache.close()
provider.close()
