"""Limits and switches of a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.cloud.limits import Safety
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.request_log_settings import RequestLogSettings
from tidegate.cloud.speech_settings import SpeechSettings
from tidegate.errors import ConfigError


@dataclass(frozen=True)
class ServerSettings:
    """Limits and switches of a server."""

    maximum_message_bytes: int = 64 * 2**20
    """largest request or answer"""
    maximum_streams: int = 1000
    """recognition and reflection streams open at once; each holds a thread"""
    unary_threads: int = 8
    """threads that streams can never take"""
    maximum_queued_calls: int = 1000
    """unary calls that wait or run; more are refused"""
    maximum_segment_s: float = 30.0
    """longest speech segment"""
    speech: SpeechSettings = field(default_factory=SpeechSettings)
    """further limits of speech streams"""
    request_log: RequestLogSettings | None = None
    """which requests are kept for retraining; None: none"""
    reflection: bool | None = None
    """whether clients may ask for the services' descriptors; None: only where no other machine reaches the address"""
    model_control: bool | None = None
    """whether clients may load and unload models; None: only where no other machine reaches the address"""
    direct: bool = True
    """whether unary calls go without a thread of their own, where this grpcio allows it"""
    share_port: bool = False
    """whether other processes may listen on the same port; the system spreads connections over them"""
    orphan_grace_s: float = 5.0
    """how long a worker process drains whose parent is gone"""
    safety: Safety = field(default_factory=Safety)
    """encryption, keys, limits against misuse"""
    outside: OutsideSettings = field(default_factory=OutsideSettings)
    """HTTP, metrics, request log, traces"""
    watch_interval_s: float = 0.0
    """how often to look for changed bundles; 0: only `Server.reload` does"""

    def __post_init__(self) -> None:
        for name in ("maximum_message_bytes", "maximum_streams", "unary_threads", "maximum_queued_calls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not self.watch_interval_s >= 0:
            raise ConfigError(f"watch_interval_s is {self.watch_interval_s}; expected 0 or more", fix="use 0 for never")
        if not self.maximum_segment_s > 0:
            raise ConfigError(f"maximum_segment_s is {self.maximum_segment_s}; expected more than 0", fix="raise it")
