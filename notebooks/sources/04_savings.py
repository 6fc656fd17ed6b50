# %% [markdown]
# # What a cache saves
#
# Two weeks of traffic, made in a few seconds: a clock is moved by hand, and the provider is one of our own. Prices are
# examples, US dollars for a million tokens; without `prices=`, those of the package `genai-prices` are taken (extra
# `prices`).

# %%
import random

import httpx
import matplotlib.pyplot as plt

from askonce import Cache, Policy, using
from askonce.report import Price
from askonce.testing import FakeProvider, ManualClock
from askonce_httpx import CacheTransport

random.seed(4)
provider = FakeProvider().start()
provider.reply("A long answer, of many words. " * 40)
clock = ManualClock(1_767_225_600)  # 1 January 2026
cache = Cache("memory://", policy=Policy(ttl="7d"), clock=clock)
client = httpx.Client(transport=CacheTransport(cache))


def ask(number, model):
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Question {number}: " + "words " * 200}],
    }
    client.post(f"{provider.base_url}/chat/completions", json=body)


# %% [markdown]
# Questions are asked as people ask: a few very often, most of them once (Zipf's law). Evaluations repeat all of theirs
# every night.

# %%
weights = [1 / rank for rank in range(1, 301)]
for day in range(14):
    with using(tags=["users"]):
        for number in random.choices(range(300), weights, k=60):
            ask(number, "gpt-4o-mini")
    with using(tags=["evals"]):
        for number in range(25):
            ask(1000 + number, "gpt-4o")
    clock.advance(86_400)

PRICES = {"gpt-4o-mini": Price(input=0.15, output=0.60), "gpt-4o": Price(input=2.50, output=10.0)}
clock.advance(-1)
report = cache.report(days=14, prices=PRICES)

# %%
days = report.by_day
figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5), sharex=True)
names = [row.name[5:] for row in days]
above.bar(names, [row.served for row in days], color="#1f8a5b", label="from the cache")
above.bar(
    names,
    [row.misses for row in days],
    bottom=[row.served for row in days],
    color="#c9922e",
    label="from the provider",
)
above.set(ylabel="calls")
above.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
above.set_title("Calls", loc="left", weight="bold")
saved, spent, sums = 0, 0, ([], [])
for row in days:
    saved, spent = saved + (row.money_saved or 0), spent + (row.money_spent or 0)
    sums[0].append(saved)
    sums[1].append(spent)
below.plot(names, sums[0], color="#1f8a5b", linewidth=2.5, label="saved")
below.plot(names, sums[1], color="#c9922e", linewidth=2.5, label="spent")
below.fill_between(names, sums[1], sums[0], color="#1f8a5b", alpha=0.12)
below.set(ylabel="US dollars, summed")
below.legend(frameon=False)
below.set_title("Money", loc="left", weight="bold")
for axes in (above, below):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
below.tick_params(axis="x", rotation=45)
figure.tight_layout()
plt.show()

# %% [markdown]
# The eighth day costs more: the evaluations' answers are a week old then, and are asked again. A longer `ttl` for them
# (`using(ttl="30d")`, or a `Rule`) would have saved that as well.

# %%
for row in (*report.by_model, *report.by_tag):
    print(
        f"{row.name:12} {row.calls:5} calls, {row.hit_rate:4.0%} from the cache, {row.saved.total:9,} tokens, ${row.money_saved:.4f} saved"
    )

# %% [markdown]
# The same as a page, for people: `report.to_html()`, or `askonce report --html report.html`. Live, in Prometheus:
# `askonce.telemetry.instrument(cache)` and `grafana.json` in this folder.

# %%
client.close()
cache.close()
provider.close()
