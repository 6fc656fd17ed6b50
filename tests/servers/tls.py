"""TLS in front of any server, with certificates of an authority of our own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import trustme

from servers.relay import CHUNK, Link, Relay, finish

__all__ = ["TLSRelay"]


class TLSStream:
    """The server's side of TLS over a connection: reader and writer in one.

    asyncio's own TLS transports cannot be aborted in every Python that we support, nor reset at all.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self._reader, self._writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.transport = writer.transport
        self.get_extra_info = writer.get_extra_info
        self.drain = writer.drain
        self.wait_closed = writer.wait_closed

    async def handshake(self) -> None:
        """Agree on keys, and on who is who."""
        await self._run(self._tls.do_handshake)

    async def read(self, size: int) -> bytes:
        try:
            return await self._run(lambda: self._tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def write(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
            self._flush()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        # This says goodbye; the other side's goodbye, which it would like to read, is not waited for.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._writer.close()

    async def _run(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                if data := await self._reader.read(CHUNK):
                    self._in.write(data)
                else:
                    self._in.write_eof()
            finally:
                # After a failure this is the alert that tells the client why.
                self._flush()

    def _flush(self) -> None:
        if data := self._out.read():
            self._writer.write(data)


class TLSRelay(Relay):
    """Speaks TLS to clients and plain TCP to one address. Use it as a context manager.

    Args:
        host: Of the server behind.
        port: Of the server behind.
        names: What the certificate is for. Clients connect to 127.0.0.1: with another name here they
            find the wrong host.
        client_certificate: Whether clients must show a certificate of the authority.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        names: tuple[str, ...] = ("127.0.0.1", "localhost"),
        client_certificate: bool = False,
    ) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        if client_certificate:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(host, port)
        self._context = context
        self._authority = authority
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="askonce-"))
        self._authority.cert_pem.write_to_path(self.ca_file)
        client = self._authority.issue_cert("client@askonce.example")
        client.private_key_pem.write_to_path(self.client_key_file)
        for each in client.cert_chain_pems:
            each.write_to_path(self.client_cert_file, append=True)
        trustme.CA().cert_pem.write_to_path(self.other_ca_file)
        return super().__enter__()

    def close(self) -> None:
        super().close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def greet(self, link: Link) -> None:
        stream = TLSStream(link.reader, link.writer, self._context)
        try:
            await stream.handshake()
        except ssl.SSLError as failure:
            await finish(link.writer)
            raise ConnectionAbortedError from failure
        link.reader = link.writer = stream

    @property
    def ca_file(self) -> str:
        """The authority's certificate: what clients have to trust."""
        return self._file("ca.pem")

    @property
    def other_ca_file(self) -> str:
        """The certificate of an authority that issued nothing here."""
        return self._file("other-ca.pem")

    @property
    def client_cert_file(self) -> str:
        """A client's certificate, which the authority issued."""
        return self._file("client.pem")

    @property
    def client_key_file(self) -> str:
        """The key of that certificate."""
        return self._file("client-key.pem")

    def _file(self, name: str) -> str:
        if self._folder is None:
            raise RuntimeError("the relay was not started: use `with TLSRelay(...)`")
        return str(self._folder / name)
