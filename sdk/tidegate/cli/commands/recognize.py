"""`tidegate recognize`: what is spoken in WAV files, as a server understands it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.cli.printing import complain, print_json_line
from tidegate.cli.server_options import add_server, tls_of, token_of
from tidegate.cli.waves import Wave, gate_of, read_wave
from tidegate.client import Client, RecognizedSegment
from tidegate.errors import ConfigError, InputError, NotFoundError, ResourceError

DESCRIPTION = """Send WAV files to a Tidegate server and print what is spoken in them, one line for each segment. The
server finds no pauses: a file is one segment, which may last 30 s unless the server says otherwise. With --cut the gate
of a bundle finds the segments here first. A file that fails is reported and the next one follows."""

EXAMPLE = """tidegate recognize 127.0.0.1:8001 yes.wav no.wav
tidegate recognize 127.0.0.1:8001 demo.wav --cut voice-commands.tide --json
tidegate recognize models.example:8443 yes.wav --interim --tls-ca ca.pem --token-file token"""

CHUNK_S = 0.1
"""audio in one message, with --interim"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("target", metavar="HOST:PORT", help="the server")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.wav", help="PCM or float, any rate")
    parser.add_argument("--cut", type=Path, metavar="BUNDLE", help="find the segments with this bundle's gate")
    parser.add_argument("--interim", action="store_true", help="also print what is understood before a segment is over")
    parser.add_argument("--model", default="", metavar="NAME", help="default: the server's speech model")
    parser.add_argument("--version", default="", metavar="V", help="default: the server's choice")
    parser.add_argument("--results", type=int, default=3, metavar="N", help="search results per segment; default 3")
    parser.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="for each file; default 60")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def run(arguments: argparse.Namespace) -> int:
    """Recognise each file; return 1 when one failed."""
    if arguments.results < 0:
        raise ConfigError(f"--results is {arguments.results}; expected 0 or more", fix="use 0 for none")
    # What fails is said in our own messages; grpc's core would add lines of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    gate = None if arguments.cut is None else gate_of(arguments.cut)
    failed = False
    with Client(
        arguments.target, timeout_s=arguments.timeout_s, tls=tls_of(arguments), token=token_of(arguments)
    ) as client:
        for path in arguments.files:
            wave = _read(path, gate)
            failed |= wave is None or not _recognise(client, wave, arguments)
    return 1 if failed else 0


def _read(path: Path, gate: PrefilterSettings | None) -> Wave | None:
    """Return the file, or say what is wrong with it and return None."""
    try:
        return read_wave(path, gate)
    except (InputError, NotFoundError, ResourceError) as error:
        complain(error)
        return None


def _recognise(client: Client, wave: Wave, arguments: argparse.Namespace) -> bool:
    """Print the answers for one file; return whether the server took it. Raises what no other file would change."""
    answers = _streamed if arguments.interim else _at_once
    try:
        for answer in answers(client, wave, arguments):
            _show(wave, answer, as_json=arguments.json)
    except (InputError, ResourceError) as error:
        sys.stdout.flush()
        complain(type(error)(f"{wave.path}: {error.message}", fix=error.fix))
        return False
    return True


def _at_once(client: Client, wave: Wave, arguments: argparse.Namespace) -> Iterator[RecognizedSegment]:
    if wave.segments:
        yield from client.recognize_recording(
            wave.samples,
            sample_rate_hz=wave.sample_rate_hz,
            segments=wave.segments,
            model=arguments.model,
            version=arguments.version,
            maximum_search_results=arguments.results,
        )


def _streamed(client: Client, wave: Wave, arguments: argparse.Namespace) -> Iterator[RecognizedSegment]:
    chunk = round(CHUNK_S * wave.sample_rate_hz)
    with client.recognize(
        sample_rate_hz=wave.sample_rate_hz,
        model=arguments.model,
        version=arguments.version,
        maximum_search_results=arguments.results,
        interim_results=True,
    ) as stream:
        for segment_id, (start, end) in enumerate(wave.segments):
            stream.begin(segment_id, start)
            for first in range(start, end, chunk):
                part = wave.samples[first : min(first + chunk, end)]
                stream.send(first, part, timeout_s=arguments.timeout_s)
                yield from stream.interim()
            stream.end(segment_id, end)
            waiting: list[RecognizedSegment] = []
            final = stream.wait(segment_id, arguments.timeout_s, on_interim=waiting.append)
            yield from (*waiting, final)


def _show(wave: Wave, answer: RecognizedSegment, *, as_json: bool) -> None:
    transcript = answer.transcript
    if as_json:
        line: dict[str, Any] = {
            "file": str(wave.path),
            "segment_id": answer.segment_id,
            "is_final": answer.is_final,
            "start_s": answer.start_s,
            "end_s": answer.end_s,
            "text": transcript.text,
            "label": transcript.label,
            "confidence": transcript.confidence,
            "stability": answer.stability,
            "words": [dataclasses.asdict(word) for word in transcript.words],
            "results": [dataclasses.asdict(found) for found in answer.search_results],
            "model": answer.model,
            "version": answer.version,
            "variant": answer.variant,
        }
        print_json_line(line)
        return
    heard = transcript.text or f"({transcript.label or 'no word'})"
    mark = "" if answer.is_final else " ..."
    print(
        f"{wave.path}  {answer.start_s:8.2f} {answer.end_s:8.2f}  {transcript.confidence:4.2f}  {heard}{mark}",
        flush=True,
    )
    for found in answer.search_results:
        print(f"  - {found.title}: {found.snippet}", flush=True)
