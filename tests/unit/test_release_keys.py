"""Keys: encrypted at rest, readable by every standard reader, never overwritten, never in clear."""

from __future__ import annotations

import resource
import signal
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.errors import ConfigError, IntegrityError, NotFoundError, ResourceError, TidegateError
from tidegate.release.keys import KeyRing, create_key, public_file, read_public_key
from tidegate.release.pkcs8 import ROUNDS, encrypt

GOOD = "correct horse"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_key(tmp_path / "root.pem", GOOD, rounds=1000)
    return tmp_path / "root.pem"


def ring(path: Path, passphrase: str = GOOD) -> KeyRing:
    return KeyRing([path], lambda _: passphrase)


def test_a_key_signs_and_its_public_half_verifies(key: Path) -> None:
    public = read_public_key(key)
    signature = ring(key).signer(public.keyid).sign(b"payload")
    public.verify_signature(signature, b"payload")
    assert read_public_key(public_file(key)).keyid == public.keyid


def test_the_private_file_is_for_its_owner_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_file(key).stat().st_mode) & 0o111 == 0


@pytest.mark.parametrize("rounds", [1, 127, 128, 1000, 65_536, ROUNDS])
def test_the_librarys_reader_opens_what_ours_wrote(rounds: int) -> None:
    private = Ed25519PrivateKey.generate()
    plain = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    opened = serialization.load_pem_private_key(encrypt(plain, "pässword".encode(), rounds), "pässword".encode())
    assert (
        opened.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        == plain
    )


@pytest.mark.parametrize("name", ["root.pem", "root.pub"])
def test_a_key_is_never_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(ConfigError, match="never overwritten"):
        create_key(tmp_path / "root.pem", GOOD, rounds=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("name", "passphrase", "error", "says"),
    [
        ("root.pem", "", ConfigError, "0 characters"),
        ("root.pem", "1234567", ConfigError, "7 characters"),
        ("root", GOOD, ConfigError, "does not end in .pem"),
        ("gone/root.pem", GOOD, NotFoundError, "not a directory"),
    ],
)
def test_what_is_not_made(name: str, passphrase: str, error: type[TidegateError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        create_key(tmp_path / name, passphrase)
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_passphrase_is_told_as_such(key: Path) -> None:
    with pytest.raises(ConfigError, match="passphrase does not open"):
        ring(key, "wrong horse").signer(read_public_key(key).keyid)


def test_a_wrong_passphrase_with_valid_padding_is_told_as_such(key: Path) -> None:
    """About one wrong passphrase in 256 decrypts to well-padded nonsense, which the library calls a damaged file."""
    public = read_public_key(key)
    words = (f"wrong horse {number}" for number in range(5_000))
    nonsense = next(word for word in words if "password" not in _why_it_does_not_open(key, word))
    with pytest.raises(ConfigError, match="passphrase does not open"):
        ring(key, nonsense).signer(public.keyid)


def _why_it_does_not_open(key: Path, passphrase: str) -> str:
    with pytest.raises(ValueError) as raised:
        serialization.load_pem_private_key(key.read_bytes(), passphrase.encode())
    return str(raised.value).lower()


def test_a_key_is_decrypted_only_when_it_signs(key: Path) -> None:
    asked: list[Path] = []

    def ask(path: Path) -> str:
        asked.append(path)
        return GOOD

    keys = KeyRing([key.parent], ask)
    (keyid,) = keys.keyids
    assert asked == []
    keys.signer(keyid)
    keys.signer(keyid)
    assert asked == [key]


def test_files_that_are_no_keys_of_ours(key: Path, tmp_path: Path) -> None:
    keyid = read_public_key(key).keyid
    encrypted = key.read_bytes()

    for content, error, says in (
        (encrypted[:80] + b"\n-----END ENCRYPTED PRIVATE KEY-----\n", IntegrityError, "damaged"),
        (b"junk", ConfigError, "not an encrypted private key"),
        (plain_pem(), ConfigError, "do not keep them in clear"),
    ):
        key.write_bytes(content)
        with pytest.raises(error) as raised:
            ring(key).signer(keyid)
        assert says in f"{raised.value.message} {raised.value.fix}"

    create_key(tmp_path / "other.pem", GOOD, rounds=1)
    key.write_bytes((tmp_path / "other.pem").read_bytes())
    with pytest.raises(ConfigError, match="does not match"):
        ring(key).signer(keyid)

    public_file(key).write_bytes(b"junk")
    with pytest.raises(ConfigError, match="not a public key"):
        ring(key)
    public_file(key).write_bytes(elliptic_pem())
    with pytest.raises(ConfigError, match="expected ed25519"):
        ring(key)
    public_file(key).unlink()
    with pytest.raises(NotFoundError):
        ring(key)
    with pytest.raises(NotFoundError):
        ring(tmp_path / "gone.pem")


def test_a_directory_is_searched_for_pairs_only(key: Path, tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_bytes(b"something else")
    assert KeyRing([tmp_path], lambda _: GOOD).keyids == {read_public_key(key).keyid}


def test_a_key_that_could_not_be_written_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1]))  # the public file fits, the private one does not
    try:
        with pytest.raises(ResourceError, match=r"root\.pem could not be written"):
            create_key(tmp_path / "root.pem", GOOD, rounds=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    assert list(tmp_path.iterdir()) == []
    create_key(tmp_path / "root.pem", GOOD, rounds=1000)


def test_the_files_hold_no_clear_key(key: Path) -> None:
    private = serialization.load_pem_private_key(key.read_bytes(), GOOD.encode())
    raw = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path in key.parent.iterdir():
        assert raw[-32:] not in path.read_bytes()
        assert b"BEGIN PRIVATE KEY" not in path.read_bytes()


def plain_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def elliptic_pem() -> bytes:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
