"""Where audio comes from: a WAV file, a microphone, standard input."""

from tidegate.edge.sources.microphone import MicrophoneAccount, MicrophoneSource
from tidegate.edge.sources.protocol import AudioSource
from tidegate.edge.sources.stdin import StdinSource
from tidegate.edge.sources.wav import WavSource

__all__ = ["AudioSource", "MicrophoneAccount", "MicrophoneSource", "StdinSource", "WavSource"]
