"""Envelopes: what was written comes back, and anything else is no entry, whatever is wrong with it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from struct import Struct
from zlib import crc32

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import askonce
from askonce import Entry
from askonce._codec import Undecodable, decode, encode
from askonce._entry import Meta
from askonce._seal import Seal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
KEY = "default:" + "ab" * 32
SECRET = b"0123456789abcdef"
HEAD = Struct(">2sBBII")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
TIMES = st.floats(0, 1e12) | st.integers(0, 2**40)
ENTRIES = st.builds(
    Entry,
    status=st.integers(100, 599),
    headers=st.lists(st.tuples(LATIN, LATIN), max_size=4).map(tuple),
    body=st.binary(max_size=200)
    | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(100, 900)),
    meta=st.builds(
        Meta,
        created_at=TIMES,
        expires_at=st.none() | TIMES,
        stale_until=st.none() | TIMES,
        model=TEXT,
        surface=TEXT,
        url=TEXT,
        usage=st.dictionaries(TEXT, st.integers(-(2**63), 2**64 - 1), max_size=3),
        latency=st.floats(0, 1e6),
        tags=st.lists(TEXT, max_size=3).map(tuple),
        fingerprint=st.dictionaries(TEXT, TEXT, max_size=3),
    ),
)


def entry(body=b'{"answer":42}', **meta):
    about = {"created_at": 1.5, "expires_at": 2.5, "stale_until": 3.5, "model": "m", **meta}
    return Entry(
        status=200,
        headers=(("content-type", "application/json"), ("date", "today")),
        body=body,
        meta=Meta(**about),
    )


SMALL = entry()
LARGE = entry(b'{"text":"' + b"hello world, " * 200 + b'"}')
NOISE = entry(os.urandom(3000))
SEALS = {"plain": None, "sealed": Seal(SECRET)}
BOTH = pytest.mark.parametrize("seal", SEALS.values(), ids=SEALS)
SIZES = pytest.mark.parametrize("made", [SMALL, LARGE, NOISE], ids=["small", "compressed", "incompressible"])


def refused(data, key=KEY, seal=None, **how):
    with pytest.raises(Undecodable) as caught:
        decode(key, data, seal, **how)
    return str(caught.value)


def envelope(header, body=b"", *, version=1, flags=0, length=None, magic=b"ao", key=KEY):
    """A forged envelope whose checksum is right for this version of the code."""
    header = header if isinstance(header, bytes) else orjson.dumps(header)
    content = header + body
    length = len(header) if length is None else length
    return HEAD.pack(magic, version, flags, checksum(content, flags, length, key), length) + content


def checksum(content, flags, length, key):
    """Format version 1: over version, flags, header length and key, then the content."""
    return crc32(content, crc32(b"1 %d %d %b" % (flags, length, key.encode())))


# -- there and back --------------------------------------------------------------------------------


@BOTH
def test_what_was_written_comes_back(seal):
    @SETTINGS
    @given(ENTRIES, TEXT)
    def there_and_back(made, name):
        found = decode(f"{name}:k", encode(f"{name}:k", made, seal), seal)
        assert found == made
        assert type(found.body) is bytes
        assert type(found.headers) is type(found.meta.tags) is tuple

    there_and_back()


@BOTH
@SIZES
def test_small_compressible_and_incompressible_bodies_come_back(made, seal):
    assert decode(KEY, encode(KEY, made, seal), seal) == made


def test_large_bodies_are_compressed_and_small_or_incompressible_ones_are_not():
    assert len(encode(KEY, LARGE)) < len(LARGE.body) / 4
    assert SMALL.body in encode(KEY, SMALL)
    assert NOISE.body in encode(KEY, NOISE)


def test_a_sealed_envelope_shows_nothing_of_what_is_in_it():
    sealed = encode(KEY, entry(b"MARKER" * 3, model="MARKER", tags=("MARKER",)), SEALS["sealed"])
    assert b"MARKER" not in sealed


# -- anything else ---------------------------------------------------------------------------------


@BOTH
@SIZES
def test_no_single_flipped_bit_is_an_entry(made, seal):
    data = encode(KEY, made, seal)
    step = max(1, len(data) // 400)
    for place in [*range(min(120, len(data))), *range(120, len(data), step)]:
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            try:
                decode(KEY, flipped, seal)
            except Undecodable:
                continue
            pytest.fail(f"bit {bit} of byte {place} flipped, and it is still an entry")


@BOTH
@SIZES
def test_nothing_cut_short_is_an_entry(made, seal):
    data = encode(KEY, made, seal)
    for size in [*range(min(200, len(data))), *range(200, len(data), 37), len(data) - 1]:
        refused(data[:size], seal=seal)


@BOTH
@SIZES
@pytest.mark.parametrize("tail", [b"\x00", b" ", b"\n", b"}", b"x" * 100])
def test_nothing_with_bytes_appended_is_an_entry(made, seal, tail):
    data = encode(KEY, made, seal)
    refused(data + tail, seal=seal)
    refused(tail + data, seal=seal)
    refused(data + data, seal=seal)


@BOTH
@SIZES
def test_an_entry_moved_to_another_key_is_no_entry(made, seal):
    data = encode(KEY, made, seal)
    for key in (KEY[:-1] + "c", "other" + KEY[7:], KEY + "0", "", "1" + KEY):
        refused(data, key, seal)


@BOTH
def test_no_bytes_are_taken_for_an_entry_and_none_raise_anything_else(seal):
    @SETTINGS
    @given(
        st.binary(max_size=100),
        st.sampled_from([b"", b"ao", b"ao\x01", b"ao\x01\x00", b"ao\x01\x01", b"ao\x01\x02"]),
    )
    def garbage(tail, head):
        refused(head + tail, seal=seal)

    garbage()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_no_entry(version):
    assert refused(envelope(header(), version=version)) == "version"


@pytest.mark.parametrize("flags", [4, 8, 0x80, 0xFC, 5])
def test_an_unknown_flag_is_no_entry(flags):
    assert refused(envelope(header(), flags=flags)) == "version"


def test_another_magic_is_no_entry():
    assert refused(b"OA" + encode(KEY, SMALL)[2:]) == "foreign"


def test_a_plain_entry_is_none_for_a_cache_with_a_secret_and_the_reverse():
    assert refused(encode(KEY, SMALL), seal=SEALS["sealed"]) == "seal"
    assert refused(encode(KEY, SMALL, SEALS["sealed"])) == "seal"


def header(**changes):
    row = {
        "status": 200, "headers": [["content-type", "application/json"]], "created_at": 1.0,
        "expires_at": 2.0,
        "stale_until": 3.0, "model": "m", "surface": "chat", "url": "u", "usage": {"a": 1}, "latency": 0.5,
        "tags": ["t"], "fingerprint": {"a": "b"},
    }  # fmt: skip
    return list((row | changes).values())


def test_a_forged_envelope_of_the_right_shape_would_be_read():
    assert decode(KEY, envelope(header(), b"body")).body == b"body"  # so that the tests below test something


SHAPES = [
    None, 5, "text", {}, [], [1], header()[:-1], [*header(), 1], dict.fromkeys("abcdefghijkl", 1),
    "abcdefghijkl",
    header(headers=None), header(headers=[["a"]]), header(headers=[["a", "b", "c"]]), header(headers=5),
    header(tags=None), header(tags=5),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:40])
def test_a_planted_header_of_another_shape_is_no_entry(shape):
    refused(envelope(shape))


TYPES = [
    {"status": "200"}, {"status": None}, {"status": 200.5}, {"headers": [[1, 2]]}, {"headers": ["ab"]},
    {"created_at": "now"}, {"created_at": None}, {"expires_at": "never"}, {"expires_at": [1]},
    {"stale_until": {}},
    {"model": 5}, {"model": None}, {"surface": None}, {"url": []}, {"usage": None}, {"usage": [1]},
    {"usage": {"a": "b"}},
    {"latency": "x"}, {"latency": None}, {"tags": "abc"}, {"tags": [1]}, {"fingerprint": None},
    {"fingerprint": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("change", TYPES, ids=str)
def test_a_planted_header_with_a_value_of_another_type_is_no_entry(change):
    refused(envelope(header(**change)))


@pytest.mark.parametrize("raw", [b"", b"[", b"nonsense", b"\xff", b"[" * 2000, b"NaN"])
def test_a_planted_header_that_is_no_json_is_no_entry(raw):
    refused(envelope(raw))


def test_a_planted_header_length_beyond_the_end_is_no_entry():
    whole = orjson.dumps(header())
    refused(envelope(whole, length=len(whole) + 1))
    refused(envelope(whole, length=2**32 - 1))


def test_a_header_length_that_reaches_into_the_body_is_no_entry_under_a_seal():
    seal = SEALS["sealed"]
    data = encode(KEY, entry(b" body"), seal)
    magic, version, flags, _, length = HEAD.unpack_from(data)
    content = data[HEAD.size :]
    check = checksum(content, flags, length + 1, KEY)
    refused(HEAD.pack(magic, version, flags, check, length + 1) + content, seal=seal)


def test_a_cleared_compression_flag_is_no_entry_under_a_seal():
    seal = SEALS["sealed"]
    data = encode(KEY, LARGE, seal)
    magic, version, flags, _, length = HEAD.unpack_from(data)
    assert flags & 1
    content = data[HEAD.size :]
    check = checksum(content, flags & ~1, length, KEY)
    refused(HEAD.pack(magic, version, flags & ~1, check, length) + content, seal=seal)


# -- bombs -----------------------------------------------------------------------------------------


def test_a_body_that_says_it_unpacks_to_too_much_is_not_unpacked():
    refused(envelope(header(), zstd.compress(b"\x00" * 100_000), flags=1), limit=99_999)
    assert (
        len(decode(KEY, envelope(header(), zstd.compress(b"\x00" * 100_000), flags=1), limit=100_000).body)
        == 100_000
    )


def test_a_body_that_does_not_say_its_size_is_not_unpacked():
    packer = zstd.ZstdCompressor()
    packed = packer.compress(b"\x00" * 100_000, mode=packer.CONTINUE) + packer.flush()
    refused(envelope(header(), packed, flags=1), limit=1000)


def test_a_bomb_in_a_second_frame_is_not_unpacked():
    packed = zstd.compress(b"small") + zstd.compress(b"\x00" * 100_000)
    refused(envelope(header(), packed, flags=1), limit=1000)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        b"nonsense",
        zstd.compress(b"x" * 5000)[:-1],
        zstd.compress(b"x" * 5000) + b"x",
    ],
    ids=["empty", "magic only", "nonsense", "cut", "tail"],
)
def test_a_damaged_compressed_body_is_no_entry(packed):
    refused(envelope(header(), packed, flags=1))


def test_the_cache_never_unpacks_more_than_its_policy_lets_it_store():
    from askonce import Cache, Policy, Request
    from askonce.doors import Opened
    from askonce.stores.memory import MemoryStore

    class Ask:
        request = Request("POST", "https://h/v1/embeddings", (), b'{"model":"m","input":"x"}')
        live, patience = False, None

        def open(self):
            return Opened(
                status=200, headers=[(b"content-type", b"application/json")], native=object(),
                body=b'{"data":[1]}', framed=True,
            )  # fmt: skip

        again = open  # noqa: A003

    store = MemoryStore()
    with Cache(store, policy=Policy(max_entry_bytes="1MiB")) as cache:
        key = cache.ask(Ask()).outcome.key
        store.set(key, envelope(header(), zstd.compress(b"\x00" * (8 << 20)), flags=1, key=key), None)
        assert cache.ask(Ask()).outcome.status == "miss"


# -- what must never be there ----------------------------------------------------------------------


def test_there_is_no_pickle_and_no_eval_anywhere_in_the_sources():
    roots = [Path(askonce.__file__).parent, *Path(askonce.__file__).parents[2].glob("integrations/askonce_*")]
    sources = [source for root in roots for source in root.rglob("*.py")]
    assert len(sources) > 30
    evil = re.compile(
        r"^\s*(import|from)\s+(pickle|cPickle|_pickle|dill|cloudpickle|marshal|shelve|joblib)\b"
        r"|\b(pickle|dill|cloudpickle|marshal)\.loads?\("
        r"|(?<![.\w])(eval|exec)\(",
        re.MULTILINE,
    )
    assert {source.name: found[0] for source in sources if (found := evil.search(source.read_text()))} == {}


def answered(cache, request):
    from askonce.doors import Opened

    class Ask:
        live, patience = False, None

        def open(self):
            return Opened(
                status=200,
                headers=[(b"content-type", b"application/json")],
                native=object(),
                body=b'{"data":[1],"text":"hello"}',
                framed=True,
            )

        again = open  # noqa: A003

    Ask.request = request
    return cache.ask(Ask())


def test_an_answer_that_cannot_be_written_for_its_tags_still_reaches_its_caller():
    from askonce import Cache, ConfigurationError, Request, using

    request = Request("POST", "https://h/v1/embeddings", (), b'{"model":"m","input":"x"}')
    with Cache("memory://") as cache:
        try:
            said = using(tags=["\ud800"])
        except ConfigurationError:
            return  # refused where it is written: as good
        with said:
            assert answered(cache, request).outcome.status == "miss"


def test_an_answer_that_cannot_be_written_for_its_field_names_still_reaches_its_caller():
    from askonce import Cache, Request

    body = b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nhello\r\n--x--\r\n'
    headers = ((b"content-type", b"multipart/form-data; boundary=x"),)
    with Cache("memory://") as cache:
        request = Request("POST", "https://h/v1/audio/transcriptions", headers, body)
        assert answered(cache, request).outcome.status == "miss"


def test_a_planted_entry_of_other_types_is_a_miss_for_its_caller():
    from askonce import Cache, Request
    from askonce.stores.memory import MemoryStore

    request = Request("POST", "https://h/v1/embeddings", (), b'{"model":"m","input":"x"}')
    store = MemoryStore()
    with Cache(store) as cache:
        key = answered(cache, request).outcome.key
        store.set(key, envelope(header(created_at="now"), b"{}", key=key), None)
        assert answered(cache, request).outcome.status == "miss"
