"""The seal: AES-256-GCM over stored answers, for caches with a `secret`."""

from __future__ import annotations

import hmac
import os
from typing import Any

from askonce._errors import missing_extra

_NONCE = 12


class Seal:
    """Encrypts and authenticates values; the cache key is the associated data.

    A value moved to another key, changed in one bit, or written with another secret does not open.
    The encryption key is derived from the secret (HMAC-SHA256 over a fixed label), so that keys of
    entries and keys of ciphers never coincide.

    Raises:
        ConfigurationError: when the package `cryptography` is not installed.
    """

    __slots__ = ("_cipher", "_tampered")

    def __init__(self, secret: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - optional
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra("cryptography", "secret", "Cache(secret=...)") from error
        self._cipher: Any = AESGCM(hmac.digest(secret, b"askonce seal v1", "sha256"))
        self._tampered: type[Exception] = InvalidTag

    def close(self, content: bytes, key: bytes) -> bytes:
        """Nonce and ciphertext, 28 bytes longer than `content`."""
        nonce = os.urandom(_NONCE)
        sealed: bytes = self._cipher.encrypt(nonce, content, key)
        return nonce + sealed

    def open(self, sealed: bytes, key: bytes) -> bytes | None:
        """The content, or None when it was not closed with this secret under this key."""
        try:
            opened: bytes = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], key)
        except (self._tampered, ValueError):
            return None
        return opened

    def __repr__(self) -> str:
        return "<Seal>"
