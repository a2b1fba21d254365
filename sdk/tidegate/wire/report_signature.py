"""The signature of a report: ed25519 (RFC 8032) over a fixed prefix and the bytes of the report's header.

PyNaCl does it, the extra `signed-report`: libsodium's constant-time code, a quarter of the memory of `cryptography`
once loaded, and a third of its size on disk. Without it, reports are sent and read unsigned.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.errors import ConfigError, DependencyError, InputError

if TYPE_CHECKING:
    from nacl.signing import SigningKey

PREFIX = b"tidegate.report/1\n"
"""Signed in front of the report, so that the key's signature means nothing anywhere else."""

ALGORITHM = "ed25519"

_DEVICE_ID = re.compile(r"[!#-\[\]-~]{1,64}\Z")
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


@dataclass(frozen=True)
class PublicKey:
    """A device's public key, as a server registers it."""

    device: str
    key: bytes
    """32 bytes"""

    def to_line(self) -> str:
        """Return DEVICE ed25519 BASE64, without a line feed."""
        return f"{self.device} {ALGORITHM} {base64.b64encode(self.key).decode()}"

    @classmethod
    def from_line(cls, line: str, *, origin: str) -> PublicKey:
        """Read such a line; what follows the three words is a comment.

        Raises:
            ConfigError: another form; the message begins with `origin`.
        """
        words = line.split()
        key = _decoded(words[2], _KEY_BYTES) if len(words) >= 3 else None
        if key is None or words[1] != ALGORITHM or not _DEVICE_ID.match(words[0]):
            raise ConfigError(
                f"{origin}: {line.strip()[:80]!r} is not DEVICE {ALGORITHM} BASE64",
                fix="copy the line from report.pub of the device's directory",
            )
        return cls(words[0], key)


class ReportKey:
    """A device's private key."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 bytes of the private key.

        Raises:
            ConfigError: another length.
            DependencyError: PyNaCl is not installed.
        """
        if len(seed) != _KEY_BYTES:
            raise ConfigError(f"the report's key has {len(seed)} bytes; expected {_KEY_BYTES}", fix="make a new one")
        self._seed = seed
        self._key: SigningKey = _signing_key(seed)

    @classmethod
    def generate(cls) -> ReportKey:
        """Make a key from the operating system's randomness."""
        import secrets

        return cls(secrets.token_bytes(_KEY_BYTES))

    @property
    def seed(self) -> bytes:
        """The private key: 32 bytes, secret."""
        return self._seed

    def public(self, device: str) -> PublicKey:
        """Return the public key under the device's id.

        Raises:
            ConfigError: the id cannot stand in a report.
        """
        if not _DEVICE_ID.match(device):
            raise ConfigError(
                f"device id {device!r} cannot be reported; expected 1 to 64 printable ASCII characters without spaces, "
                "quotes and backslashes",
                fix="initialise the device under another id",
            )
        return PublicKey(device, bytes(self._key.verify_key))

    def sign(self, value: str) -> str:
        """Return the value of the signature's header for a report."""
        return base64.b64encode(self._key.sign(PREFIX + value.encode()).signature).decode()


def is_signed_by(key: PublicKey, value: str, signature: str) -> bool:
    """Return whether `signature` is that of `key` over the report.

    Raises:
        InputError: the signature is not 64 bytes in base64.
        DependencyError: PyNaCl is not installed.
    """
    raw = _decoded(signature, _SIGNATURE_BYTES)
    if raw is None:
        raise InputError(
            f"the report's signature is not {_SIGNATURE_BYTES} bytes in base64",
            fix="sign with the device's own key, or send no signature",
        )
    try:
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey
    except ImportError as error:
        raise missing(error) from error
    try:
        VerifyKey(key.key).verify(PREFIX + value.encode("utf-8", "surrogatepass"), raw)
    except BadSignatureError:
        return False
    return True


def missing(error: ImportError) -> DependencyError:
    """Return the error for a machine without PyNaCl."""
    return DependencyError(f"signed device reports need PyNaCl: {error}", fix="pip install 'tidegate[signed-report]'")


def require() -> None:
    """Tell now rather than at the first report whether signatures can be checked.

    Raises:
        DependencyError: PyNaCl is not installed.
    """
    _signing_key(bytes(_KEY_BYTES))


def _signing_key(seed: bytes) -> SigningKey:
    try:
        from nacl.signing import SigningKey
    except ImportError as error:
        raise missing(error) from error
    return SigningKey(seed)


def _decoded(text: str, length: int) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == length else None
