"""Exports and imports: nothing lost or changed, and nothing taken from a file that was not written so."""

from __future__ import annotations

import base64
import io
import json
import random
import tracemalloc

import pytest

from askonce import Cache, Entry
from askonce._codec import encode
from askonce._entry import Meta
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock
from askonce.tools import TransferError, export_entries, import_entries, namespace_of

DIGEST = "{:064x}"


def fill(cache, count=5, *, size=40, expires_at=4e9, namespace="default"):
    """Entries as calls would have stored them."""
    items = []
    for number in range(count):
        key = f"{namespace}:{DIGEST.format(number)}"
        entry = Entry(
            status=200,
            headers=(("content-type", "application/json"),),
            body=b"%d" % number + b"x" * size,
            meta=Meta(created_at=1e9, expires_at=expires_at, stale_until=expires_at, model="m", tags=("t",)),
        )
        items.append((key, encode(key, entry, cache._seal), expires_at))
    cache.write_items(items)
    return dict(cache.entries())


@pytest.fixture
def here():
    with Cache("memory://") as cache:
        yield cache


@pytest.fixture
def there():
    with Cache("memory://") as cache:
        yield cache


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.jsonl"


def contents(cache):
    return {key: (value, expires) for key, value, expires in cache.read_items(cache.keys())}


def cut(file, lines, *, torn=b""):
    """An export that broke off after some lines, perhaps in the middle of one."""
    kept = file.read_bytes().splitlines(keepends=True)[:lines]
    file.write_bytes(b"".join(kept) + torn)


def test_an_import_elsewhere_has_equal_keys_values_and_remaining_lives(here, there, file):
    fill(here, 450)
    done = export_entries(here, file)
    assert (done.entries, done.resumed, done.bytes) == (450, 0, file.stat().st_size)
    found = import_entries(there, file)
    assert (found.entries, found.written, found.present, found.expired, found.complete) == (
        450, 450, 0, 0, True,
    )  # fmt: skip
    assert contents(there) == contents(here)
    assert dict(there.entries()) == dict(here.entries())


@pytest.mark.parametrize("torn", [b"", b'{"key":"default:00', b'{"end":true,"entr', b'{"key":1}\n'])
@pytest.mark.parametrize("lines", [0, 1, 2, 5])
def test_an_export_that_broke_off_goes_on_and_ends_as_if_it_had_not(here, file, lines, torn):
    fill(here)
    export_entries(here, file)
    whole = file.read_bytes()
    cut(file, lines, torn=torn if lines else b"")
    assert export_entries(here, file).resumed == max(0, lines - 1)
    assert file.read_bytes() == whole


def test_an_export_interrupted_by_its_store_loses_nothing(file, there):
    store = FlakyStore(MemoryStore())
    with Cache(store) as here:
        fill(here, 500)
        seen = []

        def stop(done, total):
            seen.append((done, total))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_entries(here, file, progress=stop)
        assert seen == [(16, 500)]
        assert export_entries(here, file).resumed == 16
        import_entries(there, file)
        assert contents(there) == contents(here)


def test_a_finished_export_is_not_added_to(here, file):
    fill(here)
    export_entries(here, file)
    with pytest.raises(TransferError, match="finished export of 5 entries"):
        export_entries(here, file)
    assert export_entries(here, file, anew=True).entries == 5


@pytest.mark.parametrize("text", ["my thesis\n", "my thesis", "{}", '{"askonce":"export"}'])
def test_a_file_that_is_something_else_is_left_as_it_is(here, file, text):
    file.write_text(text)
    with pytest.raises(TransferError, match="is no export of askonce"):
        export_entries(here, file)
    assert file.read_text() == text


def test_an_import_that_broke_off_has_whole_entries_and_says_that_some_are_missing(here, there, file):
    fill(here)
    export_entries(here, file)
    whole = file.read_bytes()
    cut(file, 3, torn=b'{"key":"default:0000')
    found = import_entries(there, file)
    assert (found.written, found.complete) == (2, False)
    file.write_bytes(whole)
    again = import_entries(there, file)
    assert (again.written, again.present, again.complete) == (3, 2, True)
    assert contents(there) == contents(here)


def damaged(line):
    """Everything that may happen to a line of an entry."""
    said = json.loads(line)
    value = base64.b64decode(said["value"])
    other = {**said, "key": said["key"][:-1] + "f"}
    yield "a flipped bit", {**said, "value": base64.b64encode(value[:-1] + b"?").decode()}
    yield "another key", other
    yield "another life", {**said, "expires_at": 4.1e9}
    yield "no checksum", {name: value for name, value in said.items() if name != "check"}
    yield "another namespace", {**said, "key": said["key"].replace("default", "another")}
    yield "a life that is a text", {**said, "expires_at": "later"}


@pytest.mark.parametrize("case", range(6))
def test_a_damaged_line_is_named_and_nothing_after_it_is_stored(here, there, file, case):
    fill(here)
    export_entries(here, file)
    lines = file.read_bytes().splitlines(keepends=True)
    _, bad = list(damaged(lines[2]))[case]
    file.write_bytes(b"".join([*lines[:2], json.dumps(bad).encode() + b"\n", *lines[3:]]))
    with pytest.raises(TransferError, match="line 3 is damaged"):
        import_entries(there, file)
    assert list(contents(there)) == [f"default:{DIGEST.format(0)}"]


def test_a_value_under_another_key_is_refused_though_its_line_is_consistent(here, there, file):
    from askonce._export_file import _check

    fill(here)
    export_entries(here, file)
    lines = file.read_bytes().splitlines(keepends=True)
    said = json.loads(lines[1])
    said["key"] = f"default:{DIGEST.format(77)}"
    said["check"] = _check(said["key"], base64.b64decode(said["value"]), said["expires_at"])
    file.write_bytes(lines[0] + json.dumps(said).encode() + b"\n")
    with pytest.raises(TransferError, match="checksum"):
        import_entries(there, file)
    assert contents(there) == {}


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_line_that_is_gone_is_noticed(here, there, file, lost):
    fill(here)
    export_entries(here, file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    with pytest.raises(TransferError, match="is not what was exported"):
        import_entries(there, file)


def test_what_is_stored_already_stays_unless_the_file_is_to_win(here, there, file):
    fill(here, size=10)
    export_entries(here, file)
    newer = fill(there, size=20)
    assert import_entries(there, file).present == 5
    assert dict(there.entries()) == newer
    assert import_entries(there, file, overwrite=True).written == 5
    assert contents(there) == contents(here)


def test_what_is_past_its_life_does_not_come_back(there, file):
    clock = ManualClock(1_000.0)
    with Cache("memory://", clock=clock) as here:
        fill(here, 3, expires_at=2_000.0)
        export_entries(here, file)
    found = import_entries(there, file)
    assert (found.written, found.expired) == (0, 3)
    assert contents(there) == {}


def test_an_export_goes_back_into_its_own_namespace_only(file, there):
    with Cache("memory://", namespace="evals") as here:
        fill(here, namespace="evals")
        export_entries(here, file)
    assert namespace_of(file) == "evals"
    with pytest.raises(TransferError, match="'evals', which is part of every key"):
        import_entries(there, file)


def test_sealed_answers_travel_sealed_and_open_with_their_secret_only(here, file):
    with Cache("memory://", secret="s" * 16) as sealed:
        before = fill(sealed)
        export_entries(sealed, file)
    assert import_entries(here, file).written == 5
    assert list(here.entries()) == []
    with Cache("memory://", secret="s" * 16) as again:
        import_entries(again, file)
        assert dict(again.entries()) == before


def test_a_tiered_cache_exports_each_entry_once(tmp_path, file, there):
    with Cache(["memory://", f"disk://{tmp_path}/cache"]) as here:
        fill(here)
        assert export_entries(here, file).entries == 5
        import_entries(there, file)
        assert contents(there) == contents(here)


def test_a_pipe_does_as_well_as_a_file(here, there):
    fill(here)
    pipe = io.BytesIO()
    export_entries(here, pipe)
    pipe.seek(0)
    assert import_entries(there, pipe).written == 5


def test_an_import_into_a_store_that_fails_says_so_instead_of_counting_it(here, file):
    fill(here)
    export_entries(here, file)
    store = FlakyStore(MemoryStore())
    with Cache(store) as there:
        store.fail_with(ConnectionError("down"), operations=["set_many"])
        with pytest.raises(ConnectionError):
            import_entries(there, file)
        store.recover()
        assert import_entries(there, file).written == 5


def test_memory_does_not_grow_with_the_answers(tmp_path, file):
    with Cache(f"disk://{tmp_path}/one") as here:
        for start in range(4):
            items = []
            for number in range(start * 50, start * 50 + 50):
                key = f"default:{DIGEST.format(number)}"
                body = random.Random(number).randbytes(200_000)
                meta = Meta(created_at=1e9, expires_at=None, stale_until=None)
                items.append((key, encode(key, Entry(status=200, headers=(), body=body, meta=meta)), None))
            here.write_items(items)
        tracemalloc.start()
        export_entries(here, file)  # 40 MB of answers
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 << 20
