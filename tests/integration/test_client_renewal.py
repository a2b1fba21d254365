"""A client whose server's certificate, or whose own, expires and is renewed: neither end is started again."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from tests.certificates import Authority, Pair
from tests.served import linear_bundle

from tidegate.client import AsyncClient, Client, TlsSettings, tls_trouble
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud import tls as tls_module
from tidegate.cloud.limits import Safety
from tidegate.cloud.tls import TlsFiles
from tidegate.errors import UnavailableError

ONES = np.ones((1, 4), np.float32)


def test_a_client_names_the_day_of_expiry_and_gets_in_after_the_renewal_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setattr(tls_module, "RECHECK_S", 0.0)
    monkeypatch.setattr(tls_trouble, "LOOK_TIMEOUT_S", 60.0)
    pair = authority.pair("server")
    settings = ServerSettings(safety=Safety(tls=TlsFiles(pair.cert, pair.key)))
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        Client(server.address, tls=TlsSettings(ca=authority.path), timeout_s=60) as client,
    ):
        ends_s = show_one_that_ends_soon(authority, pair, server.address)
        # Certificates count whole seconds, and the last one belongs to them.
        threading.Event().wait(ends_s + 1 - time.time())
        day = time.strftime("%Y-%m-%d", time.gmtime(ends_s))
        with pytest.raises(UnavailableError, match=f"the server's certificate expired on {day}") as caught:
            client.infer("linear", {"x": ONES})
        assert "renew" in (caught.value.fix or "")
        pair.replace_with(authority.pair("renewed"))
        deadline_s = time.monotonic() + 60
        while not answers(client):
            assert time.monotonic() < deadline_s


def show_one_that_ends_soon(authority: Authority, pair: Pair, address: str) -> float:
    """Have the server take a certificate that ends in seconds, more of them on a busy machine; return when it ends."""
    for seconds in (2, 4, 8, 16, 32):
        soon = authority.pair(f"ends-after-{seconds}", ends_days=seconds / 86400)
        pair.replace_with(soon)
        host, _, port = address.rpartition(":")
        if ssl.get_server_certificate((host, int(port)), timeout=60).split() == soon.cert.read_text().split():
            return x509.load_pem_x509_certificate(soon.cert.read_bytes()).not_valid_after_utc.timestamp()
    raise AssertionError("the server never took it while it was valid")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_reads_its_own_renewed_files_without_a_restart(
    tmp_path: Path, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_trouble, "LOOK_TIMEOUT_S", 60.0)
    authority = Authority(tmp_path)
    pair, own = authority.pair("server"), authority.pair("own", begins_days=-9, ends_days=-1)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path, "stranger").path.read_bytes())
    tls = TlsSettings(trusted, own.cert, own.key)
    settings = ServerSettings(safety=Safety(tls=TlsFiles(pair.cert, pair.key, authority.path)))

    def renew_authority() -> None:
        trusted.write_bytes(authority.path.read_bytes())

    def renew_own() -> None:
        own.replace_with(authority.pair("renewed"))

    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("comes from no authority in", renew_authority),
        (r"this client's certificate .*own\.pem expired on", renew_own),
    )
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        if asynchronous:
            asyncio.run(in_asyncio(server.address, tls, steps))
            return
        with Client(server.address, tls=tls, timeout_s=60) as client:
            for problem, mend in steps:
                with pytest.raises(UnavailableError, match=problem):
                    client.live()
                mend()
                with pytest.raises(UnavailableError, match="have changed and were read again"):
                    client.live()
            assert client.live()


async def in_asyncio(address: str, tls: TlsSettings, steps: Sequence[tuple[str, Callable[[], None]]]) -> None:
    async with AsyncClient(address, tls=tls, timeout_s=60) as client:
        for problem, mend in steps:
            with pytest.raises(UnavailableError, match=problem):
                await client.live()
            mend()
            with pytest.raises(UnavailableError, match="have changed and were read again"):
                await client.live()
        assert await client.live()


def answers(client: Client) -> bool:
    """Whether the client gets an answer now; it connects again by itself within two seconds."""
    try:
        client.infer("linear", {"x": ONES})
    except UnavailableError:
        threading.Event().wait(0.05)
        return False
    return True
