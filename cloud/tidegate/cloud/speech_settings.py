"""What a server allows speech streams, and what a client asks for."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import ConfigError, InputError
from tidegate.wire.pairing import SignalPath

LOWEST_RATE_HZ = 4_000
HIGHEST_RATE_HZ = 192_000
MOST_SEARCH_RESULTS = 100
LONGEST_WAIT_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class SpeechSettings:
    """Limits of a server's speech streams; 0 stands for none where it says so."""

    segment_pause_s: float = 30.0
    """longest wait for the next message inside a segment; 0: for ever"""
    idle_s: float = 0.0
    """longest wait between two segments; 0: for ever, since silence is never sent and a dead peer is found by pings"""
    maximum_stream_s: float = 0.0
    """a stream that is older ends when no segment is open; 0: never"""
    interim_interval_ms: int = 300
    """least audio between two interim results, unless the client says otherwise"""
    shortest_interim_ms: int = 100
    """what a client may ask for"""
    turns: int = 8
    """windows of all streams of a model that may wait in its queue at once: what a call for tensors can find ahead"""

    def __post_init__(self) -> None:
        for name in ("segment_pause_s", "idle_s", "maximum_stream_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more", fix="use 0 for no limit")
        for name in ("interim_interval_ms", "shortest_interim_ms", "turns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")


@dataclass(frozen=True)
class StreamSettings:
    """What the client asks for at the beginning."""

    sample_rate_hz: int
    """of the audio it will send"""
    model: str = ""
    version: str = ""
    maximum_search_results: int = 0
    device: SignalPath | None = None
    """front end and prefilter of the bundle on the device; None: it did not report itself"""
    device_bundle: str = ""
    """NAME VERSION, for messages"""
    interim_results: bool = False
    interim_interval_ms: int = 0
    """0: the server's choice"""
    speech_start_timeout_ms: int = 0
    """from the config to the first segment; 0: none"""
    idle_timeout_ms: int = 0
    """between segments; 0: the server's choice"""

    def __post_init__(self) -> None:
        _check_range("sample_rate_hz", self.sample_rate_hz, LOWEST_RATE_HZ, HIGHEST_RATE_HZ, "state the audio's rate")
        _check_range("maximum_search_results", self.maximum_search_results, 0, MOST_SEARCH_RESULTS, "ask for fewer")
        for name in ("interim_interval_ms", "speech_start_timeout_ms", "idle_timeout_ms"):
            _check_range(name, getattr(self, name), 0, LONGEST_WAIT_MS, "use 0 for the server's choice")


def _check_range(name: str, found: int, lowest: int, highest: int, fix: str) -> None:
    if not lowest <= found <= highest:
        raise InputError(f"{name} is {found}; expected {lowest} to {highest}", fix=fix)
