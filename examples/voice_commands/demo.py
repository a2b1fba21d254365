"""The main job on real audio: the same recording through the device and through the cloud, then a small benchmark.

Run it with `make demo`, or `python examples/voice_commands/demo.py` where `tidegate[edge,cloud]` is installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.cloud.server import Server
from tidegate.edge import Listener, WavSource

HERE = Path(__file__).parent
DEVICE_BUNDLE = HERE / "voice-commands.tide"
CLOUD_BUNDLE = HERE / "voice-commands-cloud.tide"
RECORDING = HERE / "demo.wav"


def main() -> int:
    """Describe the bundles, listen twice, benchmark once."""
    describe(DEVICE_BUNDLE, CLOUD_BUNDLE)
    heading("On the device: recording -> gate -> model -> transcript -> search results")
    listen(cloud=None)
    with Server([CLOUD_BUNDLE], listen="127.0.0.1:0") as server:
        heading(f"In the cloud: the same gate, but segments stream to a gRPC server at {server.address}")
        listen(cloud=server.address)
    heading("How fast: every variant of the device bundle on this machine, each in a process of its own")
    return benchmark()


def describe(*bundles: Path) -> None:
    """Print one line per bundle."""
    for path in bundles:
        with Bundle.open(path) as bundle:
            manifest = bundle.manifest
            variants = ", ".join(f"{variant.id} {variant.size_bytes / 1000:.0f} kB" for variant in manifest.variants)
            print(f"{manifest.name} {manifest.version}: {variants}")


def listen(cloud: str | None) -> None:
    """Play the recording through the pipeline and print what comes out and what the gate saved."""
    with Listener.open(DEVICE_BUNDLE, cloud=cloud, on_warning=warn) as listener:
        for segment in listener.listen(WavSource(RECORDING)):
            heard = segment.text or f"({segment.label})"
            print(
                f"{segment.start_s:6.2f}-{segment.end_s:5.2f} s  {heard:<10} {segment.confidence:4.0%}  "
                f"{segment.decided_by:<5} {segment.bundle} {segment.version} {segment.variant}  "
                f"{segment.latency_ms:5.1f} ms"
            )
            for result in segment.search_results[:1]:
                print(f"{'':18}-> {result.title}")
        print(listener.summary.describe())


def benchmark() -> int:
    """Run the benchmark command as a user would, briefly."""
    command = [sys.executable, "-m", "tidegate.cli", "bench", str(DEVICE_BUNDLE), "--min-duration-s", "1"]
    return subprocess.run(command, check=False).returncode


def heading(text: str) -> None:
    """Print a title."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def warn(message: str) -> None:
    """Print what went wrong but was survived."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
