"""Content codings, undone piece by piece.

A recording keeps decoded bytes: replaying a compressed body would break a client that lacks the codec,
and a stream's end can only be seen in its plain text. Codecs are imported when a response first needs
them. A coding that cannot be undone here is no error: `decoder` returns None, and the response is not
recorded.

Stricter than most HTTP clients: damage, truncation and bytes behind the end of the compressed data are
all a ValueError. A client has to show something; a recording had better not exist.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_STACKED: Final = 5  # nobody stacks more in earnest, and each one multiplies what a few bytes can cost


class Decoder(Protocol):
    """Undoes one response's content coding."""

    def feed(self, data: bytes, /) -> bytes:
        """Decode what `data` completes; maybe nothing yet. Raises ValueError on damaged data."""
        ...

    def finish(self) -> bytes:
        """Return what is left at the end of the body. Raises ValueError if the data is truncated."""
        ...


class Identity:
    """No coding at all."""

    __slots__ = ()

    def feed(self, data: bytes, /) -> bytes:
        """Return `data`, the same object."""
        return data

    def finish(self) -> bytes:
        """Return nothing: all was passed on."""
        return b""


class _Codec(Protocol):
    """What zlib's and zstd's decompressor objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Members:
    """gzip (RFC 1952) and zstd (RFC 8878) bodies: one or more members, one behind the other."""

    __slots__ = ("_codec", "_error", "_new")

    def __init__(self, new: Callable[[], _Codec], error: type[Exception]) -> None:
        self._new = new
        self._error = error
        self._codec: _Codec | None = None  # None: between members

    def feed(self, data: bytes, /) -> bytes:
        out = b""
        while data:
            codec = self._codec
            if codec is None:
                codec = self._codec = self._new()
            try:
                out += codec.decompress(data)
            except self._error as error:
                raise ValueError("damaged content coding") from error
            if not codec.eof:
                break
            data = codec.unused_data
            self._codec = None
        return out

    def finish(self) -> bytes:
        # A body of no bytes at all passes as empty: servers label it, clients accept it.
        if self._codec is not None:
            raise ValueError("truncated content coding")
        return b""


class _Deflate:
    """`deflate` is the zlib format (RFC 9110, 8.4.1.2), but some servers send it without the wrapper."""

    __slots__ = ("_codec", "_head")

    def __init__(self) -> None:
        self._codec: _Codec | None = None
        self._head = b""

    def feed(self, data: bytes, /) -> bytes:
        if not data:
            return b""
        if self._codec is None:
            data = self._head + data
            if len(data) < 2:  # noqa: PLR2004 - the zlib header's length
                self._head = data
                return b""
            # RFC 1950, 2.2. A raw stream would have to begin with a stored block padded by ones to pass.
            wrapped = data[0] & 0x0F == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
            self._codec = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
            self._head = b""
        if self._codec.eof:
            raise ValueError("bytes behind the end of the content coding")
        try:
            out = self._codec.decompress(data)
        except zlib.error as error:
            raise ValueError("damaged content coding") from error
        if self._codec.unused_data:
            raise ValueError("bytes behind the end of the content coding")
        return out

    def finish(self) -> bytes:
        if self._head or not (self._codec is None or self._codec.eof):
            raise ValueError("truncated content coding")
        return b""


class _Brotli:
    """brotli, through either of its two Python packages, which differ in one method's name."""

    __slots__ = ("_codec", "_error", "_process", "_started")

    def __init__(self, module: Any) -> None:
        self._codec = module.Decompressor()
        self._process: Callable[[bytes], bytes] = (
            getattr(self._codec, "process", None) or self._codec.decompress
        )
        self._error: type[Exception] = module.error
        self._started = False

    def feed(self, data: bytes, /) -> bytes:
        if not data:
            return b""
        if self._started and self._codec.is_finished():
            raise ValueError("bytes behind the end of the content coding")
        self._started = True
        try:
            return self._process(data)
        except self._error as error:
            raise ValueError("damaged content coding") from error

    def finish(self) -> bytes:
        if self._started and not self._codec.is_finished():
            raise ValueError("truncated content coding")
        return b""


class _Stacked:
    """Several codings, in the order in which they have to be undone."""

    __slots__ = ("_decoders",)

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def feed(self, data: bytes, /) -> bytes:
        for decoder in self._decoders:
            data = decoder.feed(data)
        return data

    def finish(self) -> bytes:
        data = b""
        for decoder in self._decoders:
            data = decoder.feed(data) + decoder.finish()
        return data


def _gzip() -> Decoder:
    return _Members(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), zlib.error)


def _zstd() -> Decoder | None:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 - only who gets zstd needs it
        else:
            from backports import zstd  # noqa: PLC0415
    except ImportError:  # a Python built without libzstd
        return None
    return _Members(zstd.ZstdDecompressor, zstd.ZstdError)


def _brotli() -> Decoder | None:
    for name in ("brotli", "brotlicffi"):
        try:
            return _Brotli(importlib.import_module(name))
        except ImportError:
            continue
    return None


_CODINGS: Final[dict[str, Callable[[], Decoder | None]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,  # RFC 9110, 8.4.1.3: to be taken as gzip
    "deflate": _Deflate,
    "zstd": _zstd,
    "br": _brotli,
}


def decoder(content_encoding: str) -> Decoder | None:
    """A fresh decoder for a `Content-Encoding` header.

    Args:
        content_encoding: the header's value, in any case; empty for none; several codings in the order
            in which they were applied, as in `gzip, br`.

    Returns:
        None if one of the codings is unknown, or its codec is not installed.
    """
    if not content_encoding:
        return Identity()
    names = [
        word for part in content_encoding.lower().split(",") if (word := part.strip()) not in {"", "identity"}
    ]
    if len(names) > _MAX_STACKED:
        return None
    decoders: list[Decoder] = []
    for name in reversed(names):
        found = _CODINGS[name]() if name in _CODINGS else None
        if found is None:
            return None
        decoders.append(found)
    if len(decoders) == 1:
        return decoders[0]
    return _Stacked(decoders) if decoders else Identity()
