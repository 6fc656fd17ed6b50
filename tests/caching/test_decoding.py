"""Content codings undone piece by piece: any split gives the same bytes, damage never passes."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import types
import zlib
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import askonce._decoding
from askonce._decoding import Identity, decoder

zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, raw": raw_deflate,
    "zstd": zstd.compress,
    "gzip, zstd": lambda data: zstd.compress(gzip.compress(data)),
    "deflate, gzip, gzip": lambda data: gzip.compress(gzip.compress(zlib.compress(data))),
}
ENCODINGS = sorted(PACKERS)
CODED = sorted(set(PACKERS) - {"identity"})
TEXT = b"".join(b'data: {"id":%d,"text":"some of it, again and again"}\n\n' % number for number in range(40))


def header(encoding):
    return encoding.removesuffix(", raw")


def undo(encoding, pieces):
    made = decoder(header(encoding))
    return b"".join([*(made.feed(piece) for piece in pieces), made.finish()])


def cut(data, positions):
    cuts = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ENCODINGS), st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=6))
def test_any_split_gives_the_same_bytes(encoding, data, positions):
    packed = PACKERS[encoding](data)
    assert undo(encoding, cut(packed, positions)) == data
    assert undo(encoding, [packed[at : at + 1] for at in range(len(packed))]) == data


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["gzip", "zstd"]),
    st.lists(st.binary(max_size=50), min_size=1, max_size=5),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_several_members_are_one_body(encoding, members, positions):
    packed = b"".join(map(PACKERS[encoding], members))
    assert undo(encoding, cut(packed, positions)) == b"".join(members)


@pytest.mark.parametrize("encoding", CODED)
def test_truncated_data_never_passes(encoding):
    packed = PACKERS[encoding](TEXT)
    for size in range(1, len(packed)):
        with pytest.raises(ValueError, match="content coding"):
            undo(encoding, [packed[:size]])


@pytest.mark.parametrize(
    "encoding", [name for name in CODED if name != "zstd"]
)  # a zstd frame may begin here
def test_bytes_behind_the_end_never_pass(encoding):
    packed = PACKERS[encoding](TEXT)
    for pieces in ([packed + b"more"], [packed, b"more"]):
        with pytest.raises(ValueError, match="content coding"):
            undo(encoding, pieces)


@pytest.mark.parametrize("encoding", CODED)
def test_damage_is_a_value_error(encoding):
    with pytest.raises(ValueError, match="content coding"):
        undo(encoding, [b"\xff\xff\xff\xff not packed at all"])


def test_a_wrong_checksum_is_damage():
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        undo("gzip", [bytes(packed)])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_empty_body_passes_whatever_its_label_says(encoding):
    assert undo(encoding, []) == b""
    assert undo(encoding, [b""]) == b""


def test_flushed_parts_come_out_at_once():
    for encoding, packer, flush in (
        ("gzip", zlib.compressobj(wbits=31), zlib.Z_SYNC_FLUSH),
        ("zstd", zstd.ZstdCompressor(), zstd.ZstdCompressor.FLUSH_BLOCK),
    ):
        made = decoder(encoding)
        for part in (b"data: 1\n\n", b"data: 2\n\n"):
            packed = packer.compress(part)
            packed += packer.flush(flush)
            assert made.feed(packed) == part


@pytest.mark.parametrize("value", ["", "identity", " Identity ", ",", "identity, identity"])
def test_no_coding_is_identity(value):
    assert isinstance(decoder(value), Identity)


@pytest.mark.parametrize("value", ["GZIP", "x-gzip", " gzip ,", "identity, gzip"])
def test_names_are_read_as_http_reads_them(value):
    assert undo(value, [gzip.compress(TEXT)]) == TEXT


@pytest.mark.parametrize(
    "value", ["compress", "aws-chunked", "gzip, dcb", "gzip;q=1", ", ".join(["gzip"] * 6)]
)
def test_what_cannot_be_undone_has_no_decoder(value):
    assert decoder(value) is None


def test_brotli_without_a_package_has_no_decoder(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "brotlicffi", None)
    assert decoder("br") is None


@pytest.mark.parametrize(("package", "other"), [("brotli", "brotlicffi"), ("brotlicffi", "brotli")])
def test_either_brotli_package_serves(monkeypatch, package, other):
    brotli = import_module(package)
    monkeypatch.setitem(sys.modules, other, None)
    packed = brotli.compress(TEXT)
    assert undo("br", [packed]) == TEXT
    assert undo("br", [packed[at : at + 1] for at in range(len(packed))]) == TEXT
    assert undo("gzip, br", [brotli.compress(gzip.compress(TEXT))]) == TEXT
    assert undo("br", []) == b""
    for wrong in ([packed[:-1]], [packed, b"more"], [b"\xff\xff\xff\xff no"]):
        with pytest.raises(ValueError, match="content coding"):
            undo("br", wrong)


@pytest.mark.parametrize("method", ["process", "decompress"])
def test_brotli_is_driven_by_the_method_its_package_has(monkeypatch, method):
    class Decompressor:
        def __init__(self):
            self.finished = False

        def is_finished(self):
            return self.finished

    class BrotliError(Exception):
        pass

    def undo_one(self, data):
        if data == b"wrong":
            raise BrotliError
        self.finished = data.endswith(b".")
        return data.upper()

    setattr(Decompressor, method, undo_one)
    fake = types.ModuleType("brotli")
    fake.Decompressor = Decompressor
    fake.error = BrotliError
    monkeypatch.setitem(sys.modules, "brotli", fake)
    assert undo("br", [b"a", b"", b"b."]) == b"AB."
    assert undo("br", []) == b""
    for pieces in ([b"a"], [b"a.", b"b"], [b"wrong"]):
        with pytest.raises(ValueError, match="content coding"):
            undo("br", pieces)


def test_codecs_are_imported_when_first_needed():
    root = Path(askonce._decoding.__file__).parents[1]
    program = (
        "import sys; from askonce._decoding import decoder; decoder('gzip'); "
        "print([name for name in sys.modules if 'zstd' in name or 'brotli' in name])"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "[]"
