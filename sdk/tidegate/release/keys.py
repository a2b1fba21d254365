"""Signing keys: ed25519, encrypted at rest, found by what they must sign.

A key is two files: `NAME.pem`, the private key as encrypted PKCS#8 with mode 0600, and `NAME.pub`, the public key as
PEM, which may be shown to anybody. The public file tells which key it is without the passphrase, so that only the keys
that are needed are ever decrypted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tidegate.errors import ConfigError, IntegrityError, NotFoundError, ResourceError
from tidegate.release.disk import Disk, store
from tidegate.release.error_mapping import mapped, missing
from tidegate.release.pkcs8 import ROUNDS, encrypt, is_whole
from tidegate.release.tuf_types import CryptoSigner, SSlibKey

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError as error:
    raise missing(error) from error

AskPassphrase = Callable[[Path], str]
"""Given the private key's file, returns its passphrase."""

MINIMUM_PASSPHRASE_CHARACTERS = 8

_PRIVATE_MODE, _PUBLIC_MODE = 0o600, 0o644


def create_key(private_file: Path, passphrase: str, *, rounds: int = ROUNDS) -> SSlibKey:
    """Make a key: write `private_file` (`….pem`) and the public file beside it; return the public key.

    Args:
        private_file: a new name in a directory that exists.
        passphrase: at least 8 characters.
        rounds: of the key derivation; fewer only where the key is worth nothing, as in tests.

    Raises:
        ConfigError: a file of that name is there, its name does not end in .pem, or the passphrase is too short.
        NotFoundError: the directory does not exist.
        ResourceError: the disk refuses.
    """
    check_new_key(private_file)
    _check_passphrase(passphrase)
    private = Ed25519PrivateKey.generate()
    plain = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key()
    disk = Disk()
    # The public file first: a private key without it would not be found, a public one alone does no harm.
    store(disk, public_file(private_file), _public_pem(public), mode=_PUBLIC_MODE)
    try:
        store(disk, private_file, encrypt(plain, passphrase.encode(), rounds), mode=_PRIVATE_MODE)
    except ResourceError:
        disk.remove(public_file(private_file))  # or the same command could not be repeated
        raise
    return _named(public)


def public_file(private_file: Path) -> Path:
    """Return where the public key of a private file lies."""
    return private_file.with_suffix(".pub")


def read_public_key(path: Path) -> SSlibKey:
    """Read a `.pub` file; given a `.pem` file, the one beside it.

    Raises:
        NotFoundError: it is not there.
        ConfigError: it is not an ed25519 public key.
    """
    where = public_file(path) if path.suffix == ".pem" else path
    with mapped(str(where)):
        try:
            public = serialization.load_pem_public_key(_read(where))
        except ValueError as error:
            raise ConfigError(f"{where} is not a public key in PEM form", fix="name a .pub file") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"{where} holds another kind of key; expected ed25519", fix="use `tidegate keys create`")
    return _named(public)


class KeyRing:
    """The private keys at hand: directories of `.pem` files, or single files. Decrypted when first needed."""

    def __init__(self, places: Iterable[Path], ask_passphrase: AskPassphrase) -> None:
        self._ask = ask_passphrase
        self._files: dict[str, Path] = {}
        self._signers: dict[str, CryptoSigner] = {}
        for place in places:
            for private_file in _private_files(place):
                self._files[read_public_key(private_file).keyid] = private_file

    @property
    def keyids(self) -> frozenset[str]:
        """Which keys are at hand."""
        return frozenset(self._files)

    def signer(self, keyid: str) -> CryptoSigner:
        """Return what signs with this key.

        Raises:
            ConfigError: wrong passphrase, or the two files are not of one key.
            IntegrityError: the private file is damaged.
        """
        if keyid not in self._signers:
            self._signers[keyid] = self._open(self._files[keyid])
        return self._signers[keyid]

    def _open(self, path: Path) -> CryptoSigner:
        pem = _read(path)
        if b"BEGIN ENCRYPTED PRIVATE KEY" not in pem:
            raise ConfigError(
                f"{path} is not an encrypted private key; expected PKCS#8 PEM with a passphrase",
                fix="make keys with `tidegate keys create`; do not keep them in clear",
            )
        with mapped(str(path)):
            try:
                private = serialization.load_pem_private_key(pem, self._ask(path).encode())
            except ValueError as error:
                if is_whole(pem):
                    raise ConfigError(
                        f"the passphrase does not open {path}",
                        fix="enter the right one; where TIDEGATE_PASSPHRASE is set it counts for every key, "
                        "so unset it when keys have passphrases of their own",
                    ) from error
                raise IntegrityError(f"{path} is damaged: {error}", fix="take it from your backup") from error
            if not isinstance(private, Ed25519PrivateKey):
                raise ConfigError(
                    f"{path} holds another kind of key; expected ed25519", fix="use `tidegate keys create`"
                )
            return CryptoSigner(private, read_public_key(path))


def check_new_key(private_file: Path) -> None:
    """Check, before a passphrase is asked for, that a key of that name can be made.

    Raises:
        ConfigError: a file of that name is there, or its name does not end in .pem.
        NotFoundError: the directory does not exist.
    """
    if private_file.suffix != ".pem":
        raise ConfigError(f"{private_file} does not end in .pem", fix=f"name it {private_file}.pem")
    for path in (private_file, public_file(private_file)):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already; a key is never overwritten", fix="choose another name")
    if not private_file.parent.is_dir():
        raise NotFoundError(f"{private_file.parent} is not a directory", fix="make it first, readable by you alone")


def _check_passphrase(passphrase: str) -> None:
    if len(passphrase) < MINIMUM_PASSPHRASE_CHARACTERS:
        raise ConfigError(
            f"the passphrase has {len(passphrase)} characters; expected at least {MINIMUM_PASSPHRASE_CHARACTERS}",
            fix="use several words",
        )


def _private_files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return [path for path in sorted(place.glob("*.pem")) if public_file(path).is_file()]


def _public_pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _named(public: Ed25519PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(public)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(
            f"{path} is not there", fix="name a key's .pem file with its .pub file beside it, or their directory"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be read: {os.strerror(error.errno or 0)}", fix="check its permissions"
        ) from error
