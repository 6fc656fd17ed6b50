"""Whatever happens in whatever order: never the answer to another question, never one that is too old."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from askonce import Cache, OfflineMiss, Policy, Request, using
from askonce._exchange import Opened
from askonce.stores import MemoryStore
from askonce.testing import ManualClock

TTL = 100
QUESTIONS = st.integers(0, 3)
MODES = st.sampled_from(["on", "on", "on", "refresh", "read_only", "offline", "off"])


def answer_of(question, number):
    """Says which question it answers and which upstream call it was."""
    text = f"{question}/{number}/" + "x" * (question * 700)
    return orjson.dumps(
        {
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": text}}],
            "usage": {"total_tokens": 1},
        }
    )


class Ask:
    live = False
    patience = None

    def __init__(self, machine, question):
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": str(question)}]})
        self.request = Request(
            "POST", "https://api.test/v1/chat/completions", ((b"content-type", b"application/json"),), body
        )
        self.machine = machine
        self.question = question

    def open(self):
        return self.machine.upstream(self.question)

    def again(self):
        return self.open()


class AsyncAsk(Ask):
    async def open(self):
        return self.machine.upstream(self.question)

    async def again(self):
        return await self.open()


class CacheModel(RuleBasedStateMachine):
    """A dict of what the newest stored answer of a question may be, and when each answer was made."""

    @initialize(
        swr=st.sampled_from([0, 30]),
        sie=st.sampled_from([0, 60]),
        tiers=st.sampled_from([1, 2]),
        sealed=st.booleans(),
    )
    def start(self, swr, sie, tiers, sealed):
        self.clock = ManualClock()
        self.stores = [MemoryStore(clock=self.clock) for _ in range(tiers)]
        self.swr, self.sie = swr, sie
        policy = Policy(ttl=TTL, jitter=0, stale_while_revalidate=swr, stale_if_error=sie)
        # Refreshes run on the loop, one at a time, so that every step is over when it returns.
        self.cache = Cache(
            self.stores,
            policy=policy,
            clock=self.clock,
            secret="a secret of some length" if sealed else None,
        )
        self.calls = 0
        self.failing = False
        self.made = {}  # call number -> (question, time)
        self.gone = set()  # call numbers that were deleted, cleared or replaced
        self.newest = {}

    def upstream(self, question):
        self.calls += 1
        if self.failing:
            raise ConnectionError("down")
        self.made[self.calls] = (question, self.clock())
        body = answer_of(question, self.calls)
        return Opened(
            status=200,
            headers=[(b"content-type", b"application/json")],
            native=body,
            body=body,
            framed=True,
        )

    def _ask(self, question, face):
        if face == "sync":
            # A stale answer would start a thread; the model has only one.
            return self.cache.ask(Ask(self, question))

        async def main():
            reply = await self.cache.aask(AsyncAsk(self, question))
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=5)
            return reply

        return asyncio.run(main())

    @rule(question=QUESTIONS, mode=MODES, down=st.booleans(), max_age=st.sampled_from([None, None, 0, 20]))
    def ask(self, question, mode, down, max_age):
        before, self.failing = self.calls, down
        now = self.clock()
        with using(mode=mode, max_age=max_age):
            try:
                reply = self._ask(question, "async")
            except OfflineMiss:
                assert mode == "offline"
                assert self.calls == before
                return
            except ConnectionError:
                assert down
                return
            finally:
                self.failing = False
        if mode == "off":
            assert reply.outcome.status == "bypass"
            return
        body = reply.native if reply.entry is None else reply.entry.body
        said, number, _ = orjson.loads(body)["choices"][0]["message"]["content"].split("/")
        number = int(number)
        assert int(said) == question, "the answer to another question"
        made_for, made_at = self.made[number]
        assert made_for == question
        age = now - made_at
        status = reply.outcome.status
        if status == "miss":
            assert number == before + 1
        else:
            assert mode != "refresh" or self.sie
            assert number not in self.gone, "an answer that was deleted or replaced"
            assert reply.outcome.age == pytest.approx(max(0, age))
        if status == "hit":
            assert age < TTL
            assert self.calls == before
        if status == "stale":
            window = self.swr if reply.outcome.reason == "stale-while-revalidate" else self.sie
            assert TTL <= age < TTL + window
        if max_age is not None and status != "miss":
            assert age <= max_age
        if self.calls > before and not down and mode in {"on", "refresh"}:
            # Stored, through the call itself or a refresh: what was there is replaced.
            self.gone.update(
                one for one, (asked, _) in self.made.items() if asked == question and one != self.calls
            )
        if mode in {"read_only", "off"}:
            self.gone.update(one for one in range(before + 1, self.calls + 1))

    @rule(seconds=st.sampled_from([0, 1, 19, 50, 99, 100, 129, 130, 200]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(question=QUESTIONS)
    def delete(self, question):
        for key, entry in list(self.cache.entries()):
            if orjson.loads(entry.body)["choices"][0]["message"]["content"].startswith(f"{question}/"):
                assert self.cache.delete(key)
        self.gone.update(one for one, (asked, _) in self.made.items() if asked == question)

    @rule()
    def clear(self):
        self.cache.clear()
        assert list(self.cache.entries()) == []
        self.gone.update(self.made)

    @rule(which=st.integers(0, 3), part=st.integers(0, 999), tier=st.integers(0, 1), bit=st.integers(0, 7))
    def corrupt(self, which, part, tier, bit):
        store = self.stores[tier % len(self.stores)]
        keys = sorted(store.scan(""))
        if not keys:
            return
        key = keys[which % len(keys)]
        stored = store.get(key)
        place = part * len(stored.value) // 1000  # latencies differ, and with them the lengths
        value = bytearray(stored.value)
        value[place] ^= 1 << bit
        store.set(key, bytes(value), stored.expires_at)

    @rule(which=st.integers(0, 3), tier=st.integers(0, 1))
    def swap(self, which, tier):
        """Values under each other's keys."""
        store = self.stores[tier % len(self.stores)]
        keys = sorted(store.scan(""))
        if len(keys) < 2:
            return
        one, two = keys[which % len(keys)], keys[(which + 1) % len(keys)]
        first, second = store.get(one), store.get(two)
        store.set(one, second.value, second.expires_at)
        store.set(two, first.value, first.expires_at)

    @precondition(lambda self: len(self.stores) == 2)
    @rule()
    def front_forgets(self):
        self.stores[0].delete(*self.stores[0].scan(""))

    @invariant()
    def nothing_is_in_flight(self):
        if hasattr(self, "cache"):
            assert len(self.cache._flow.flights) == 0

    @invariant()
    def entries_are_what_was_answered(self):
        if hasattr(self, "cache"):
            for _, entry in self.cache.entries():
                said, number, _ = orjson.loads(entry.body)["choices"][0]["message"]["content"].split("/")
                assert self.made[int(number)][0] == int(said)

    def teardown(self):
        if hasattr(self, "cache"):
            self.cache.close()


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
