# %% [markdown]
# # Questions that mean the same
#
# After an exact miss, the answer to a *similar* question may be given. How similar is similar enough, and how often is
# that wrong? Here is how to see it before turning it on.
#
# The embedder below counts words. It is a toy: it needs no download, gives the same vectors everywhere, and errs often,
# which is what makes the curve worth looking at. In earnest, take `EndpointEmbedder` or a local model.

# %%
import re
import zlib

import httpx
import matplotlib.pyplot as plt
import numpy as np

from askonce import Cache, track
from askonce.semantic import FunctionEmbedder, Logged, SemanticLayer, tune
from askonce.testing import FakeProvider
from askonce_httpx import CacheTransport

SMALL_WORDS = {
    "a",
    "an",
    "the",
    "is",
    "of",
    "what",
    "please",
    "tell",
    "me",
    "do",
    "i",
    "my",
    "how",
    "can",
    "to",
}


def bag_of_words(texts):
    vectors = np.full((len(texts), 512), 1e-3)
    for row, text in zip(vectors, texts):
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % 512] += 0.25 if word in SMALL_WORDS else 1.0
    return vectors


embedder = FunctionEmbedder(bag_of_words, name="bag-of-words-512")

# %% [markdown]
# ## In a cache

# %%
provider = FakeProvider().start()
cache = Cache("memory://", semantic=SemanticLayer(embedder, threshold=0.9, shadow=0))
client = httpx.Client(transport=CacheTransport(cache))


def ask(question):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    with track() as outcomes:
        client.post(f"{provider.base_url}/chat/completions", json=body)
    outcome = outcomes[0]
    near = "" if outcome.similarity is None else f"similarity {outcome.similarity:.2f}"
    print(f"{outcome.status:9} {near:16} {question}")


ask("What is the boiling point of ethanol?")
ask("Please tell me the boiling point of ethanol")  # the same in other words
ask("What is the boiling point of methanol?")  # near, and something else
ask("Is the boiling point of ethanol not 78 C?")  # numbers and negation are vetoed whatever the vectors say

# %% [markdown]
# ## The error curve
#
# A log of questions with their answers is replayed with every threshold. A hit is wrong when the question's own answer
# was another one. The log: 40 topics, each asked in five ways.

# %%
THINGS = "ethanol water mercury iron lead gold silver copper zinc tin helium neon argon oxygen nitrogen carbon sulphur boron chlorine iodine".split()
FACTS = ("boiling point", "atomic mass")
WAYS = (
    "What is the {f} of {t}?",
    "Please tell me the {f} of {t}",
    "the {f} of {t}",
    "{t}: {f}?",
    "How do I look up the {f} of the element {t}?",
)
log = [
    Logged(question=way.format(f=fact, t=thing), answer=f"{fact} of {thing}")
    for way in WAYS
    for thing in THINGS
    for fact in FACTS
]
np.random.default_rng(7).shuffle(log)
curve = {
    on: tune(log, embedder, thresholds=[0.5 + 0.01 * step for step in range(51)], guards=on)
    for on in (True, False)
}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for on, colour in ((False, "#c9922e"), (True, "#1f8a5b")):
    rows = curve[on]
    at = [row.threshold for row in rows]
    label = "guards on" if on else "guards off"
    left.plot(at, [row.hit_rate for row in rows], color=colour, label=label, linewidth=2)
    middle = np.array([row.wrong / row.requests for row in rows])
    left.plot(at, middle, color=colour, linestyle="--", linewidth=1.5)
    right.plot([row.hit_rate for row in rows], middle, color=colour, label=label, linewidth=2)
    right.fill_between(
        [row.hit_rate for row in rows],
        [row.error.low for row in rows],
        [row.error.high for row in rows],
        color=colour,
        alpha=0.15,
    )
left.set(xlabel="threshold", title="hits (solid) and wrong answers (dashed)")
right.set(
    xlabel="share of requests answered by the layer", title="what a hit rate costs in wrong answers, 95 %"
)
for axes in (left, right):
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
right.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
figure.tight_layout()
plt.show()

# %% [markdown]
# Read the right picture from the left axis: how much may be wrong says how many hits can be had. Without guards this
# embedder begins to mix up questions below 0.85. The guards veto another name or number whatever the vectors say: fewer
# hits, and none wrong until far lower. The log is made up and tidy, and so are its steps; yours is neither.
# `askonce semantic tune log.jsonl` draws the curve from your own traffic.
#
# No wrong answer among 200 does not mean that none will come: the interval says how many there may be.

# %%
for row in curve[True][20::10]:
    print(f"threshold {row.threshold:.2f}: {row.hit_rate:6.1%} hits, wrong {row.error}")

# %%
client.close()
cache.close()
provider.close()
