"""`tidegate listen`: audio in, transcript and search results out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.cli.printing import print_json_line
from tidegate.cli.server_options import add_server, tls_of, token_of
from tidegate.edge import AudioSource, Listener, MicrophoneSource, PacedSource, SegmentResult, StdinSource, WavSource
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.wire.report import Latest

DESCRIPTION = """\
Listen to a file, a microphone or standard input. Only speech goes on to the model, on this device or on a server.
One line comes out for each segment of speech: start, end, transcript, confidence, where it was decided, latency; its
search results stand below it. A segment without a word shows the label that fits best, such as (unknown); one on which
the model failed shows (failed), and why stands on standard error. When every segment failed, the exit code is 1."""

EXAMPLE = """\
tidegate listen voice-commands.tide --wav demo.wav
tidegate listen voice-commands.tide --mic --cloud 192.168.1.20:8001
tidegate listen voice-commands.tide --mic --cloud models.example:8443 --cloud-tls-ca ca.pem --cloud-token-file token
tidegate listen --device device --mic
arecord -q -t raw -f S16_LE -r 16000 | tidegate listen voice-commands.tide --stdin --rate 16000 --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a .tide file or a bundle directory")
    parser.add_argument("--device", metavar="DIR", help="instead of a bundle: run what is active on this device")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", metavar="FILE", help="a WAV file")
    source.add_argument("--mic", action="store_true", help="the default microphone")
    source.add_argument("--stdin", action="store_true", help="a WAV, or 16-bit mono samples together with --rate")
    parser.add_argument("--rate", type=int, metavar="HZ", help="sample rate of --stdin, or the one wanted of --mic")
    parser.add_argument("--cloud", metavar="HOST:PORT", help="let this server decide; the device's model stands by")
    parser.add_argument("--cloud-model", default="", metavar="NAME", help="the model wanted there")
    add_server(parser, "cloud-")
    parser.add_argument("--variant", metavar="ID", help="the variant to run here (default: the first that can)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the model here")
    parser.add_argument("--catalogue", metavar="FILE", help="search this JSON Lines file instead of the bundle's own")
    parser.add_argument("--results", type=int, default=3, metavar="N", help="search results a segment (default: 3)")
    parser.add_argument("--realtime", action="store_true", help="play --wav at its own speed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the summary last")


def run(arguments: argparse.Namespace) -> int:
    """Listen until the source ends, Ctrl-C or SIGTERM."""
    _check(arguments)
    with Listener.open(
        arguments.bundle,
        device=arguments.device,
        cloud=arguments.cloud,
        cloud_model=arguments.cloud_model,
        cloud_tls=tls_of(arguments, "cloud-"),
        cloud_token=token_of(arguments, "cloud-"),
        variant=arguments.variant,
        threads=arguments.threads,
        catalogue=arguments.catalogue,
        maximum_results=arguments.results,
        on_warning=_warn,
        on_newer=_newer(arguments),
    ) as listener:
        show = _show_json if arguments.json else _show
        source = _source(arguments)
        with _UntilInterrupted(source) as interruptible:
            for result in listener.listen(interruptible):
                show(result)
        _warn_of_lost_audio(source)
        if arguments.json:
            print_json_line({"summary": dataclasses.asdict(listener.summary)})
        else:
            print(f"\n{listener.summary.describe()}", flush=True)
        heard = listener.summary
    return 1 if heard.segments and heard.segments_failed == heard.segments else 0


class _UntilInterrupted:
    """A source that Ctrl-C or SIGTERM ends as if it had run out, so that what was being said is still recognised.

    A second signal interrupts as usual.
    """

    def __init__(self, source: AudioSource) -> None:
        self._source = source
        self._reading = False
        self._stopped = False
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    @property
    def sample_rate_hz(self) -> int:
        return self._source.sample_rate_hz

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        chunks = self._source.chunks()
        while not self._stopped:
            try:
                self._reading = True
                chunk = next(chunks, None)
            except KeyboardInterrupt:
                return
            finally:
                self._reading = False
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        self._source.close()

    def let_go(self) -> None:
        """Give the signals back their usual meaning."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> _UntilInterrupted:
        for number in self._before:
            signal.signal(number, self._on_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.let_go()
        self._stopped = True
        if self._reading:
            raise KeyboardInterrupt


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.bundle is None) == (arguments.device is None):
        raise ConfigError(
            "expected a bundle or --device, one of them; "
            + ("neither is given" if arguments.bundle is None else "both are given"),
            fix="name a .tide file, or a directory that `tidegate device init` made",
        )
    if arguments.realtime and not arguments.wav:
        raise ConfigError("--realtime paces a file, and there is no --wav", fix="leave out --realtime")
    if arguments.rate is not None and arguments.wav:
        raise ConfigError("--rate is given, but a WAV file states its own rate", fix="leave out --rate")
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads is {arguments.threads}; expected 1 or more", fix="leave it out for the default")


def _source(arguments: argparse.Namespace) -> AudioSource:
    if arguments.wav:
        source = WavSource(arguments.wav)
        return PacedSource(source) if arguments.realtime else source
    if arguments.mic:
        return MicrophoneSource() if arguments.rate is None else MicrophoneSource(sample_rate_hz=arguments.rate)
    return StdinSource(sys.stdin.buffer, arguments.rate)


def _newer(arguments: argparse.Namespace) -> Callable[[Latest], None]:
    """Tell of a newer release that the server named, and what to do."""

    def tell(latest: Latest) -> None:
        update = shlex.join(["tidegate", "device", "update", "--directory", str(arguments.device)])
        if arguments.json:
            print_json_line({"newer": {**dataclasses.asdict(latest), "update": update}})
        _warn(
            f"the server knows of a newer release for this device: {latest.model} {latest.version} "
            f"(release {latest.release} on {latest.track}); run `{update}`"
        )

    return tell


def _show(result: SegmentResult) -> None:
    heard = result.text or f"({'failed' if result.problem else result.label or 'no word'})"
    print(
        f"{result.start_s:8.2f} {result.end_s:8.2f}  {heard:<20} {result.confidence:4.2f}  {result.decided_by:<5} "
        f"{result.latency_ms:7.1f} ms",
        flush=True,
    )
    for found in result.search_results:
        print(f"{'':19}- {found.title}: {found.snippet}", flush=True)


def _show_json(result: SegmentResult) -> None:
    line: dict[str, Any] = {
        "start_s": result.start_s,
        "end_s": result.end_s,
        "text": result.text,
        "label": result.label,
        "confidence": result.confidence,
        "decided_by": result.decided_by,
        "latency_ms": result.latency_ms,
        "bundle": result.bundle,
        "version": result.version,
        "variant": result.variant,
        "words": [dataclasses.asdict(word) for word in result.words],
        "results": [dataclasses.asdict(found) for found in result.search_results],
    }
    if result.problem:
        line["problem"] = result.problem
    print_json_line(line)


def _warn_of_lost_audio(source: AudioSource) -> None:
    if isinstance(source, MicrophoneSource) and (source.account.overflows or source.account.dropped_samples):
        lost = source.account
        _warn(f"the microphone lost audio: {lost.overflows} overflows, {lost.dropped_samples} samples dropped")


def _warn(message: str) -> None:
    print(f"tidegate: {message}", file=sys.stderr, flush=True)
