"""An ed25519 private key as encrypted PKCS#8 PEM, with a key derivation that costs an attacker something.

The library's own writer derives the key with 2048 rounds, a few thousand guesses a second on one core. So the few
dozen bytes of DER around the ciphertext are put together here (RFC 8018: PBES2, PBKDF2 with HMAC-SHA-256, AES-256-CBC;
RFC 5958: EncryptedPrivateKeyInfo), and every standard reader, the library's and OpenSSL's, opens them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import textwrap
from typing import Final

ROUNDS: Final = 600_000
"""OWASP's figure for PBKDF2 with HMAC-SHA-256"""

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_NULL = b"\x05\x00"
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_BLOCK_BYTES = 16


def encrypt(private_key_info: bytes, passphrase: bytes, rounds: int = ROUNDS) -> bytes:
    """Return `BEGIN ENCRYPTED PRIVATE KEY` PEM.

    Args:
        private_key_info: unencrypted PKCS#8 DER.
        passphrase: UTF-8.
        rounds: of PBKDF2, at least 1.
    """
    salt, vector = os.urandom(16), os.urandom(_BLOCK_BYTES)
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, rounds, 32)
    derivation = _der(
        _SEQUENCE,
        _PBKDF2
        + _der(
            _SEQUENCE,
            _der(_OCTETS, salt)
            + _der(_INTEGER, rounds.to_bytes(rounds.bit_length() // 8 + 1, "big"))
            + _der(_SEQUENCE, _HMAC_SHA256 + _NULL),
        ),
    )
    cipher = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, vector))
    algorithm = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, derivation + cipher))
    document = _der(_SEQUENCE, algorithm + _der(_OCTETS, _aes_256_cbc(key, vector, private_key_info)))
    lines = textwrap.wrap(base64.b64encode(document).decode(), 64)
    return "\n".join(
        ["-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, "-----END ENCRYPTED PRIVATE KEY-----", ""]
    ).encode()


def is_whole(pem: bytes) -> bool:
    """Tell whether the text holds one complete DER element, so that only the passphrase can keep it from opening.

    A wrong passphrase is not always known as such: once in 256 times the padding comes out valid and the library finds
    nonsense in place of a key, which it reports like a damaged file.
    """
    lines = [line.strip() for line in pem.splitlines()]
    body = b"".join(line for line in lines if not line.startswith(b"-----"))
    try:
        document = base64.b64decode(body, validate=True)
    except ValueError:
        return False
    if len(document) < 4 or document[0] != _SEQUENCE:
        return False
    return document == _der(_SEQUENCE, document[-_content_bytes(document) :])


def _content_bytes(document: bytes) -> int:
    """Return what the element's own length says; at least 1, so that it can be sliced from the end."""
    long_form = document[1] & 0x7F
    stated = int.from_bytes(document[2 : 2 + long_form], "big") if document[1] & 0x80 else document[1]
    return max(stated, 1)


def _aes_256_cbc(key: bytes, vector: bytes, plain: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    padding = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    return encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()


def _der(tag: int, content: bytes) -> bytes:
    """Encode one element of at most 65,535 bytes."""
    if len(content) < 0x80:
        length = bytes([len(content)])
    elif len(content) < 0x100:
        length = bytes([0x81, len(content)])
    else:
        length = b"\x82" + len(content).to_bytes(2, "big")
    return bytes([tag]) + length + content
