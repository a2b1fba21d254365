"""A client whose server's certificate, or whose own, expires and is renewed: neither end is started again."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from tests.certificates import Authority, Pair
from tests.served import linear_bundle

from tidegate.client import Client, TlsSettings, tls_trouble
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


def answers(client: Client) -> bool:
    """Whether the client gets an answer now; it connects again by itself within two seconds."""
    try:
        client.infer("linear", {"x": ONES})
    except UnavailableError:
        threading.Event().wait(0.05)
        return False
    return True
