"""Which devices a roll-out of so many percent reaches: the one function that publisher, device and tests share."""

from __future__ import annotations

import hashlib

_DOMAIN = b"tidegate.cohort/1\n"


def cohort(device_id: str, salt: str) -> int:
    """Return the device's place in the roll-out with this salt: 0 to 99, spread evenly over devices.

    The first eight bytes of SHA-256 over a fixed prefix, the salt, a line feed and the device id, read as a fraction
    of 2^64 and scaled to 100. The same everywhere and for ever: docs/channel.md has worked values.
    """
    seed = _DOMAIN + salt.encode() + b"\n" + device_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") * 100 >> 64


def in_cohort(device_id: str, salt: str, percent: int) -> bool:
    """Return whether a roll-out at `percent` (0 to 100) reaches the device.

    While the salt stays, raising `percent` only adds devices: whoever was reached at 5 is reached at 20.
    """
    return cohort(device_id, salt) < percent
