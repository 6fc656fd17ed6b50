"""Exports carry the semantic layer's rows: what hit by meaning in the old place does in the new one."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import time
import tracemalloc
from hashlib import sha256
from zlib import crc32

import numpy as np
import pytest
from core_kit import until

from askonce import using
from askonce._export_file import Beside, beside_line
from askonce.semantic import FunctionEmbedder, LocalIndex, Portable, RedisIndex, Row, SemanticLayer
from askonce.semantic._rows import decode, encode, key_of
from askonce.stores import MemoryStore
from askonce.tools import TransferError, export_entries, import_entries

ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"
OTHER = "What is the capital of France?"
OTHER_SAME = "The capital of France, what is it called?"
FACES = pytest.mark.parametrize("face", ["sync", "async"])


def direction(text):
    """Texts about one thing lie together, whatever their words; of others each lies elsewhere."""
    subject = next((word for word in ("password", "France") if word in text), text)
    return np.random.default_rng(crc32(subject.encode())).normal(size=32)


@pytest.fixture
def places(kit, tmp_path, request):
    """Makes caches over the places that answers and rows can be in, each place new and empty."""
    made = []

    def make(
        kind="memory", *, index=None, store=None, layer=None, semantic=True, embedder="by subject", **options
    ):
        if kind == "redis index" and index is None:
            pytest.importorskip("redisvl")
            server = request.getfixturevalue("redis_query")
            index = RedisIndex(server.url, name=f"m{secrets.token_hex(4)}", timeout=5)
            made.append(index)
        if store is None:
            if kind == "redis":
                store = f"{request.getfixturevalue('valkey').url}?prefix={secrets.token_hex(6)}:"
            else:
                store = f"disk://{tmp_path}/{secrets.token_hex(4)}" if kind == "disk" else MemoryStore()
        given = FunctionEmbedder(lambda texts: [direction(text) for text in texts], name=embedder)
        said = {"shadow": 0.0, "timeout": 5, "index": index, "guards": False, **(layer or {})}
        found = SemanticLayer(given, **said) if semantic else None
        options = {"clock": time.time, "ttl": 1000, **options}
        return kit.cache(store, semantic=found, **options)

    yield make
    for index in made:
        index.close()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.jsonl"


def call(kit, face, cache, prompt, **options):
    if face == "sync":
        return kit.ask(cache, prompt, **options)
    return asyncio.run(asyncio.wait_for(kit.aask(cache, prompt, **options), 10))


def settled(kit, cache):
    """Have the rows of the partition read, as any first question has."""
    kit.ask(cache, f"Unrelated {secrets.token_hex(4)}")
    if cache._layer.keeper() is None:
        until(lambda: cache.stats().layer.get("rows read"), "rows")


def lines(file):
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def rows_in(file):
    return [line for line in lines(file) if "beside" in line]


# -- from anywhere to anywhere ----------------------------------------------------------------------


@FACES
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("memory", "memory"),
        ("disk", "redis"),
        ("redis", "disk"),
        ("disk", "redis index"),
        ("redis index", "disk"),
        ("redis index", "redis index"),
    ],
)
def test_what_hit_by_meaning_in_the_old_place_does_in_the_new_one(kit, places, file, *, face, source, target):
    here = places(source)
    answers = [call(kit, face, here, asked).body for asked in (ASKED, OTHER)]
    assert call(kit, face, here, SAME).body == answers[0]
    done = export_entries(here, file)
    assert (done.entries, done.rows) == (2, 2)
    there = places(target)
    found = import_entries(there, file)
    assert (found.entries, found.written, found.rows, found.rows_written) == (2, 2, 2, 2)
    settled(kit, there)
    before = kit.upstream.calls
    for question, answer in zip((SAME, OTHER_SAME), answers, strict=True):
        result = call(kit, face, there, question)
        assert (result.outcome.status, result.body) == ("semantic", answer)
    assert kit.upstream.calls == before


def test_rows_pass_through_a_cache_that_has_no_layer(kit, places, file):
    store, other = MemoryStore(), MemoryStore()
    answer = kit.ask(places(store=store), ASKED).body
    assert export_entries(places(store=store, semantic=False), file).rows == 1
    assert import_entries(places(store=other, semantic=False), file).rows_written == 1
    there = places(store=other)
    settled(kit, there)
    result = kit.ask(there, SAME)
    assert (result.outcome.status, result.body) == ("semantic", answer)


def test_an_index_is_named_to_a_cache_that_has_no_layer(kit, places, file, redis_query):
    pytest.importorskip("redisvl")
    name = f"m{secrets.token_hex(4)}"
    store, other = MemoryStore(), MemoryStore()
    index, target = RedisIndex(redis_query.url, name=name), RedisIndex(redis_query.url, name=f"{name}-there")
    answer = kit.ask(places(store=store, index=index), ASKED).body
    bare = places(store=store, semantic=False)
    assert export_entries(bare, file).rows == 0
    assert export_entries(bare, file, anew=True, index=index).rows == 1
    assert import_entries(places(store=other, semantic=False), file, index=target).rows_written == 1
    assert list(other.scan("default~rows:")) == []
    result = kit.ask(places(store=other, index=target), SAME)
    assert (result.outcome.status, result.body) == ("semantic", answer)
    index.close()
    target.close()


def test_rows_of_another_embedder_do_not_answer(kit, places, file):
    here, there = places(), places(embedder="another model")
    kit.ask(here, ASKED)
    export_entries(here, file)
    import_entries(there, file)
    kit.ask(there, OTHER)
    assert kit.ask(there, SAME).outcome.status == "miss"


def test_an_import_is_noticed_by_the_cache_that_makes_it(kit, places, file):
    here, there = places(), places()
    answer = kit.ask(here, ASKED).body
    export_entries(here, file)
    kit.ask(there, OTHER)  # from now on it believes to know the rows of the partition
    assert kit.ask(there, SAME).outcome.status == "miss"
    there.delete(kit.ask(there, SAME).outcome.key)
    import_entries(there, file)
    settled(kit, there)
    assert kit.ask(there, SAME + " now").body == answer


def test_what_was_learned_of_an_answer_goes_with_it(kit, places, file):
    verified = {"max_error": 0.2, "judge": lambda _: True}
    kit.upstream.always = None
    here = places(layer=verified)
    answer = kit.ask(here, ASKED).body
    for number in range(12):
        kit.ask(here, f"{SAME} {number * 'please '}")
        until(
            lambda number=number: (
                sum(here.stats().layer.get(f"judged {one}", 0) for one in ("right", "wrong"))
                + here.stats().layer.get("served", 0)
                > number
            ),
            "the judge",
        )
    there = places(layer=verified)
    assert export_entries(here, file).rows == 2  # a row, and what was learned
    assert import_entries(there, file).rows_written == 2
    settled(kit, there)
    there._layer._draw = lambda: 0.999
    result = kit.ask(there, SAME)
    assert (result.outcome.status, result.body) == ("semantic", answer)


# -- which rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_an_export_has_the_rows_of_its_namespace_and_no_others(kit, places, file, kind):
    here = places(kind)
    index = here._layer.keeper()
    store = here._backing.stores[0]
    evals = places(kind, store=store, index=index, namespace="evals")
    mine = kit.ask(here, ASKED).outcome.key
    theirs = kit.ask(evals, ASKED).outcome.key
    with using(scope="tenant"):
        scoped = kit.ask(here, OTHER).outcome.key
    export_entries(here, file)
    assert {row["of"] for row in rows_in(file)} == {mine, scoped}
    export_entries(evals, file, anew=True)
    assert [row["of"] for row in rows_in(file)] == [theirs]


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_where_all_rows_are_of_others_the_file_is_of_version_1(kit, places, file, kind):
    here = places(kind)
    kit.ask(here, ASKED)
    with using(semantic=False):
        alone = kit.ask(here, OTHER).outcome.key
    here.delete(next(key for key in here.keys() if key != alone))  # noqa: SIM118 - a Cache is no mapping
    export_entries(here, file)
    assert [line.get("version") for line in lines(file)] == [1, None, None]


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_a_row_whose_entry_is_gone_is_not_exported(kit, places, file, kind):
    here = places(kind)
    gone, kept = kit.ask(here, ASKED).outcome.key, kit.ask(here, OTHER).outcome.key
    here.delete(gone)
    assert export_entries(here, file).rows == 1
    assert [row["of"] for row in rows_in(file)] == [kept]


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_the_row_of_an_answer_that_stayed_as_it_was_is_not_added(kit, places, file, kind):
    here, there = places(), places(kind)
    kit.ask(here, ASKED)
    export_entries(here, file)
    with using(semantic=False):
        own = kit.ask(there, ASKED).body
    found = import_entries(there, file)
    assert (found.present, found.rows, found.rows_written) == (1, 1, 0)
    kit.ask(there, OTHER)
    assert kit.ask(there, SAME).outcome.status == "miss"
    assert kit.ask(there, ASKED).body == own
    over = import_entries(there, file, overwrite=True)
    assert (over.written, over.rows_written) == (1, 1)


def test_the_row_of_an_entry_past_its_life_is_not_added(kit, places, file):
    here, there = places(ttl=0.2), places()
    kit.ask(here, ASKED)
    export_entries(here, file)
    time.sleep(0.3)
    found = import_entries(there, file)
    assert (found.expired, found.rows, found.rows_written) == (1, 1, 0)
    assert list(there._backing.stores[0].scan("default")) == []


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_a_row_lives_exactly_as_long_as_its_entry(kit, places, file, request, kind):
    here, there = places(), places(kind)
    kit.ask(here, ASKED)
    export_entries(here, file)
    import_entries(there, file)
    ((_, entry),) = there.entries()
    if kind == "memory":
        (key,) = there._backing.stores[0].scan("default~rows:")
        assert there._backing.stores[0].get(key).expires_at == entry.meta.stale_until
    else:
        server, index = request.getfixturevalue("redis_query"), there._layer.keeper()
        (key,) = server.run("KEYS", f"{index._layout.name}-*")
        assert server.run("PEXPIRETIME", key) == int(entry.meta.stale_until * 1000)


def test_rows_that_are_there_already_stay(kit, places, file):
    here, there = places(), places()
    kit.ask(here, ASKED)
    export_entries(here, file)
    assert import_entries(there, file).rows_written == 1
    assert import_entries(there, file).rows_written == 0
    assert import_entries(there, file, overwrite=True).rows_written == 1


# -- the file ---------------------------------------------------------------------------------------


def test_a_file_without_rows_is_of_version_1_as_ever(kit, places, file):
    here = places(semantic=False)
    kit.ask(here, ASKED)
    export_entries(here, file)
    head, entry, end = lines(file)
    assert head == {"askonce": "export", "version": 1, "namespace": "default"}
    assert set(entry) == {"key", "expires_at", "check", "value"}
    assert set(end) == {"end", "entries", "sha256"}


def test_rows_follow_the_entries_in_a_file_of_version_2(kit, places, file):
    here = places()
    for asked in (ASKED, OTHER):
        kit.ask(here, asked)
    done = export_entries(here, file)
    head, *between, end = lines(file)
    assert head["version"] == 2
    assert ["beside" in line for line in between] == [False, False, True, True]
    assert (end["entries"], end["rows"]) == (2, 2)
    assert done.bytes == file.stat().st_size
    assert b"password" not in file.read_bytes().replace(b"\n", b"")


def test_a_file_of_a_later_version_is_refused_and_named(places, file):
    file.write_text('{"askonce":"export","version":3,"namespace":"default"}\n')
    with pytest.raises(TransferError, match="of version 3; this askonce reads versions 1 and 2"):
        import_entries(places(), file)
    with pytest.raises(TransferError, match="of version 3"):
        export_entries(places(), file)


@pytest.mark.parametrize("torn", [b"", b'{"beside":"default~ro', b'{"key":"default:00', b'{"end":true,"entr'])
@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4, 5, 6])
def test_an_export_that_broke_off_goes_on_and_ends_as_if_it_had_not(kit, places, file, kept, torn):
    here = places()
    for asked in (ASKED, OTHER, "And a third thing?"):
        kit.ask(here, asked)
    export_entries(here, file)
    whole = file.read_bytes()
    assert whole.count(b"\n") == 8
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]) + (torn if kept else b""))
    done = export_entries(here, file)
    assert file.read_bytes() == whole
    assert (done.entries, done.rows, done.bytes) == (3, 3, len(whole))


def test_rows_that_came_after_an_export_broke_off_are_in_it_too(kit, places, file):
    """Also where the part that is there was written by a version that knew of no rows."""
    store = MemoryStore()
    here = places(store=store)
    kit.ask(here, ASKED)
    export_entries(here, file)
    whole = file.read_bytes()
    head, entry, *_ = whole.splitlines(keepends=True)
    file.write_bytes(head.replace(b'"version":2', b'"version":1') + entry)
    done = export_entries(here, file)
    assert (done.resumed, done.rows) == (1, 1)
    assert file.read_bytes() == whole


def test_a_row_in_a_file_of_version_1_is_none(kit, places, file):
    here, there = places(), places()
    kit.ask(here, ASKED)
    export_entries(here, file)
    file.write_bytes(file.read_bytes().replace(b'"version":2', b'"version":1'))
    with pytest.raises(TransferError, match=r"line 3 is damaged \(it is no entry\)"):
        import_entries(there, file)
    assert len(there.keys()) == 1


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_an_import_that_broke_off_is_made_again_and_then_has_all_rows(kit, places, file, cut):
    here, there = places(), places()
    answers = [kit.ask(here, asked).body for asked in (ASKED, OTHER)]
    export_entries(here, file)
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:cut]))
    assert not import_entries(there, file).complete
    file.write_bytes(whole)
    found = import_entries(there, file)
    assert (found.complete, found.present) == (True, min(2, cut - 1))
    settled(kit, there)
    assert [kit.ask(there, asked).body for asked in (SAME, OTHER_SAME)] == answers


def test_a_pipe_carries_rows_as_well(kit, places):
    here, there = places(), places()
    kit.ask(here, ASKED)
    pipe = io.BytesIO()
    assert export_entries(here, pipe).rows == 1
    pipe.seek(0)
    assert import_entries(there, pipe).rows_written == 1


def test_progress_counts_rows_too(kit, places, file):
    here = places()
    for number in range(20):
        kit.ask(here, f"Question {number}?", semantic=False) if number > 30 else kit.ask(
            here, f"No {number}!"
        )
    seen = []
    export_entries(here, file, progress=lambda *said: seen.append(said))
    done, total = seen[-1]
    assert (done, total) == (40, 40)
    assert len(rows_in(file)) == 20


# -- what a file may do, and what not ---------------------------------------------------------------


def forged(file, change):
    """A file with its first row alone, and that one changed, with every checksum as it should be."""
    head_and_entries = [line for line in lines(file) if "beside" not in line and "end" not in line]
    whole = b"".join(file.read_bytes().splitlines(keepends=True)[: len(head_and_entries)])
    said = rows_in(file)[0]
    row = Beside(said["beside"], said["of"], said["entry"], base64.b64decode(said["value"]))
    whole += beside_line(change(row))
    end = {"end": True, "entries": len(head_and_entries) - 1, "rows": 1, "sha256": sha256(whole).hexdigest()}
    file.write_bytes(whole + json.dumps(end).encode() + b"\n")


def damaged(said):
    """Everything that may happen to the line of a row."""
    value = base64.b64decode(said["value"])
    yield {**said, "value": base64.b64encode(value[:-1] + b"?").decode()}
    yield {**said, "beside": said["beside"][:-1] + "x"}
    yield {**said, "of": said["of"][:-1] + "x"}
    yield {**said, "entry": "0" * 32}
    yield {name: value for name, value in said.items() if name != "check"}
    yield {**said, "beside": 5}


@pytest.mark.parametrize("case", range(6))
def test_a_damaged_row_is_named_and_nothing_after_it_is_stored(kit, places, file, case):
    here, there = places(), places()
    for asked in (ASKED, OTHER):
        kit.ask(here, asked)
    export_entries(here, file)
    whole = file.read_bytes().splitlines(keepends=True)
    bad = list(damaged(json.loads(whole[3])))[case]
    file.write_bytes(b"".join([*whole[:3], json.dumps(bad).encode() + b"\n", *whole[4:]]))
    with pytest.raises(TransferError, match="line 4 is damaged"):
        import_entries(there, file)
    assert len(there.keys()) == 2
    assert list(there._backing.stores[0].scan("default~rows:")) == []


@pytest.mark.parametrize("lost", [3, 4])
def test_a_row_that_is_gone_is_noticed(kit, places, file, lost):
    here, there = places(), places()
    for asked in (ASKED, OTHER):
        kit.ask(here, asked)
    export_entries(here, file)
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:lost] + whole[lost + 1 :]))
    with pytest.raises(TransferError, match="2 entries and 1 rows, and is not what was exported"):
        import_entries(there, file)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row._replace(key="default~tally:" + row.key[-64:]),
        lambda row: row._replace(key="other~rows:" + row.key[-64:]),
        lambda row: row._replace(key=row.of),
        lambda row: row._replace(key=row.key + "0"),
        lambda row: row._replace(key=row.key[:-32] + "0" * 32),
        lambda row: row._replace(of="other" + row.of[7:]),
        lambda row: as_row_of(row, "0" * 64),
        lambda row: as_row_of(row, None, partition="x" * 32),
        lambda row: row._replace(value=b"x"),
        lambda row: row._replace(value=row.value[:2] + b"\2" + row.value[3:]),
    ],
    ids=["kind", "namespace", "an entry", "long", "another entry", "elsewhere", "whole row of another",
         "no digits", "no row", "later format"],
)  # fmt: skip
def test_what_is_no_row_of_its_entry_is_refused_though_its_checksums_hold(kit, places, file, change):
    here, there = places(), places()
    kit.ask(here, ASKED)
    export_entries(here, file)
    forged(file, change)
    with pytest.raises(TransferError, match="line 3 is damaged"):
        import_entries(there, file)
    store = there._backing.stores[0]
    assert not {*store.scan("")} - {*there.keys()}


def as_row_of(row, name, *, partition=None):
    """The same row, said to be of another entry, or of another partition."""
    old, facts, vector = decode(row.key, row.value, None)
    place = partition or row.key[-64:-32]
    key = key_of("default", place, name or old)
    return row._replace(key=key, value=encode(key, Row(name or old, vector, facts), None))


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_a_forged_row_cannot_give_the_answer_to_another_question(kit, places, file, kind):
    """It has the vector of one question, and names the answer to the other."""
    here, there = places(), places(kind)
    answers = {
        kit.ask(here, asked).outcome.key: (asked, kit.ask(here, asked).body) for asked in (ASKED, OTHER)
    }
    export_entries(here, file)
    first, second = rows_in(file)
    forged(
        file, lambda row: as_row_of(row, second["of"][-64:])._replace(of=second["of"], entry=second["entry"])
    )
    found = import_entries(there, file)
    assert (found.written, found.rows, found.rows_written, found.complete) == (2, 1, 1, True)
    settled(kit, there)
    near, wrong = answers[first["of"]][0], answers[second["of"]][1]
    result = kit.ask(there, SAME if near == ASKED else OTHER_SAME)
    assert (result.outcome.status, result.body == wrong) == ("miss", False)
    assert there.stats().layer["row does not fit"] == 1


@pytest.mark.parametrize("kind", ["memory", "redis index"])
def test_a_row_forged_into_another_scope_answers_nobody_there(kit, places, file, kind):
    here, there = places(), places(kind)
    with using(scope="a"):
        mine = kit.ask(here, ASKED).body
    export_entries(here, file)
    partitions = []
    add = there._layer._index.add
    there._layer._index.add = lambda place, row: (partitions.append(place), add(place, row))
    with using(scope="b"):
        kit.ask(there, OTHER)
    forged(file, lambda row: as_row_of(row, None, partition=partitions[0][:32]))
    assert import_entries(there, file).rows_written == 1
    with using(scope="b"):
        settled(kit, there)
        result = kit.ask(there, SAME)
        assert (result.outcome.status, result.body == mine) == ("miss", False)
    assert there.stats().layer["rows forgotten"] == 1
    with using(scope="a"):
        assert kit.ask(there, ASKED).body == mine


def test_scopes_stay_apart_on_the_way(kit, places, file):
    here, there = places(), places()
    bodies = {}
    for scope in ("a", "b"):
        with using(scope=scope):
            bodies[scope] = kit.ask(here, ASKED).body
    assert export_entries(here, file).rows == 2
    import_entries(there, file)
    for scope in ("a", "b"):
        with using(scope=scope):
            settled(kit, there)
            result = kit.ask(there, SAME)
            assert (result.outcome.status, result.body) == ("semantic", bodies[scope])
    assert kit.ask(there, SAME).outcome.status == "miss"


SECRET = {"secret": "s" * 16}


@pytest.mark.parametrize("source", ["memory", "redis index"])
@pytest.mark.parametrize("target", ["memory", "redis index"])
def test_sealed_rows_travel_sealed_and_open_with_their_secret_only(kit, places, file, source, target):
    here = places(source, **SECRET)
    answer = kit.ask(here, ASKED).body
    assert export_entries(here, file).rows == 1
    (row,) = rows_in(file)
    assert decode(row["beside"], base64.b64decode(row["value"]), None) is None
    other = places(target, secret="t" * 16)
    assert import_entries(other, file).rows_written == (1 if target == "memory" else 0)
    there = places(target, **SECRET)
    assert import_entries(there, file).rows_written == 1
    settled(kit, there)
    result = kit.ask(there, SAME)
    assert (result.outcome.status, result.body) == ("semantic", answer)


def test_with_a_secret_a_forged_vector_is_no_row(kit, places, file):
    """Without one, a file says what it likes, of entries as of rows: only those that one trusts are read."""
    here, there = places(**SECRET), places(**SECRET)
    kit.ask(here, ASKED)
    export_entries(here, file)

    def change(row):
        vector = direction(OTHER)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        plain = Row(row.of[-64:], vector, b"x" * 20)
        return row._replace(value=encode(row.key, plain, None))

    forged(file, change)
    import_entries(there, file)
    kit.ask(there, "Something else")
    assert kit.ask(there, OTHER_SAME).outcome.status == "miss"


# -- many -------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_rows(kit, places, file, tmp_path):
    """Each row of 40 KB: 3000 of them are 120 MB, and 160 MB in the file."""
    here = places("disk", ttl=None)
    fill(here, 1500, dimensions=10_000)
    tracemalloc.start()
    assert export_entries(here, file).rows == 1500
    exported = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    there = places("disk", ttl=None)
    assert import_entries(there, file).rows_written == 1500
    imported = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert exported < 40 << 20
    assert imported < 60 << 20


def fill(cache, count, *, dimensions):
    """Entries with rows, as calls would have stored them."""
    from askonce import Entry
    from askonce._codec import encode as entry_bytes
    from askonce._entry import Meta

    meta = Meta(created_at=1e9, expires_at=None, stale_until=None)
    store = cache._backing.stores[0]
    vector = np.zeros(dimensions, np.float32)
    vector[0] = 1
    for start in range(0, count, 200):
        items = []
        for number in range(start, min(count, start + 200)):
            name = f"{number:064x}"[::-1]
            key = f"default:{name}"
            items.append((key, entry_bytes(key, Entry(status=200, headers=(), body=b"{}", meta=meta)), None))
            row = key_of("default", f"{number % 7:064x}"[::-1], name)
            items.append((row, encode(row, Row(name, vector, b"f" * 40), None), None))
        store.set_many(items)
    return count


# -- indexes that keep their rows themselves --------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["url", "client that decodes"])
def redis_index(request, redis_query):
    pytest.importorskip("redisvl")
    name = f"m{secrets.token_hex(4)}"
    if not request.param:
        index = RedisIndex(redis_query.url, name=name, timeout=5)
        yield index
        index.close()
        return
    with redis_query.client(decode_responses=True) as client:
        yield RedisIndex(client=client, name=name)


def a_row(*numbers, name=None, life=1000.0, owner="", dimensions=8):
    vector = np.zeros(dimensions, np.float32)
    vector[: len(numbers)] = numbers
    vector /= np.linalg.norm(vector)
    return Row(name or secrets.token_hex(32), vector, b"\0facts\xff", time.time() + life, owner)


def test_a_redis_index_hands_over_the_rows_it_was_given(redis_index):
    rows = [(secrets.token_hex(16), a_row(1, number, dimensions=8 + number % 2)) for number in range(30)]
    assert isinstance(redis_index, Portable)
    assert redis_index.add_many(rows) == 30
    places = list(redis_index.places())
    assert {(place.partition, place.name) for place in places} == {(where, row.name) for where, row in rows}
    expected = {row.name: row for _, row in rows}
    taken = redis_index.take(places)
    assert len(taken) == 30
    for place, row in taken:
        assert place.dimensions == len(row.vector)
        assert row.facts == expected[row.name].facts
        assert row.vector.tolist() == expected[row.name].vector.tolist()
    where, one = rows[3]
    assert [near.name for near in redis_index.search(where, one.vector, 1)] == [one.name]


def test_a_redis_index_keeps_what_it_has_unless_it_is_to_be_overwritten(redis_index):
    where, row = secrets.token_hex(16), a_row(1)
    redis_index.add(where, row)
    other = row._replace(vector=a_row(0, 1).vector)
    assert redis_index.add_many([(where, other)]) == 0
    assert redis_index.search(where, row.vector, 1)[0].similarity > 0.99
    assert redis_index.add_many([(where, other)], overwrite=True) == 1
    assert redis_index.search(where, other.vector, 1)[0].similarity > 0.99


def test_places_of_other_indexes_and_other_keys_are_none(redis_query):
    pytest.importorskip("redisvl")
    name = f"m{secrets.token_hex(4)}"
    index, longer = RedisIndex(redis_query.url, name=name), RedisIndex(redis_query.url, name=f"{name}-8")
    longer.add("a" * 64, a_row(1))
    redis_query.run("SET", f"{name}-8:mine:not", "a text of somebody else's")
    assert list(index.places()) == []
    assert len(list(longer.places())) == 1
    index.close()
    longer.close()


def test_an_import_keeps_within_what_a_scope_may_have(kit, places, file, redis_query):
    pytest.importorskip("redisvl")
    here = places()
    for scope in ("a", "b"):
        with using(scope=scope):
            for number in range(12):
                with using(sample=number):  # a partition of its own
                    kit.ask(here, ASKED)
    assert export_entries(here, file).rows == 24
    index = RedisIndex(redis_query.url, name=f"m{secrets.token_hex(4)}", max_rows_per_scope=5)
    assert import_entries(places(index=index), file).rows_written == 24
    assert len(list(index.places())) == 10, "five of each scope"
    index.close()


def test_an_index_that_cannot_hand_its_rows_over_is_told_of(kit, places, file, caplog):
    class Own(LocalIndex):
        durable = True

    here = places(index=Own())
    kit.ask(here, ASKED)
    assert export_entries(here, file).rows == 0
    assert "Own keeps its rows itself and is not Portable" in caplog.text
    assert lines(file)[0]["version"] == 1
    assert import_entries(places(), file).written == 1
