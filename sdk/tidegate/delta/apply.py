"""Old file + delta = new file. Needs numpy and zstandard, and checks everything that the delta says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.bundle.atomic import write_atomically
from tidegate.delta.differences import from_planes
from tidegate.delta.format import FETCH_FULL, HEADER, Header, Identity, Sections, read_header
from tidegate.delta.frames import FrameReader
from tidegate.delta.plan import MAXIMUM_REGIONS, REGION_BYTES, WIDTHS, Plan, Region, decode_plan, read_gaps
from tidegate.delta.source import CHUNK_BYTES, BytesSource, FileSource, Part, Source, sha256_of
from tidegate.errors import ConfigError, InputError, IntegrityError

PLANE_WINDOW_BYTES = 1 << 20
"""Window of a plane's frame: differences do not repeat over long distances, and up to 15 planes are open at once."""


@dataclass(frozen=True)
class Limits:
    """What to refuse whatever a delta says."""

    full_bytes: int = 2 << 30
    """largest new file"""

    def __post_init__(self) -> None:
        if self.full_bytes < 0:
            raise ConfigError(f"full_bytes is {self.full_bytes}; expected 0 or more", fix="give a size in bytes")


def apply(base: bytes, delta: bytes, *, full: Identity | None = None, limits: Limits | None = None) -> bytes:
    """Return the new file.

    Args:
        base: the old file.
        delta: a delta that was made from it.
        full: what must come out, when a signed document says so.
        limits: default `Limits()`.

    Raises:
        InputError: the delta is for another old file, or exceeds the limits.
        IntegrityError: the delta is damaged or lies, or leads to another file than `full`.
        DependencyError: zstandard is not installed.
    """
    return b"".join(_reconstructed(BytesSource(base), BytesSource(delta), full, limits or Limits()))


def apply_file(
    base: Path, delta: Path, out: Path, *, full: Identity | None = None, limits: Limits | None = None
) -> None:
    """Write the new file to `out`, which shows all of it or what it showed before. Reads and writes in pieces.

    Raises:
        NotFoundError: a file or the directory of `out` is not there.
        ResourceError: the disk is full or refuses.
        InputError, IntegrityError, DependencyError: as for `apply`.
    """
    with FileSource(base) as old, FileSource(delta) as source:
        write_atomically(out, _reconstructed(old, source, full, limits or Limits()))


def _reconstructed(base: Source, delta: Source, full: Identity | None, limits: Limits) -> Iterator[bytes]:
    """Yield the new file in pieces; an error may come after the last, so what was yielded counts only at the end."""
    header = read_header(delta.read_at(0, min(HEADER.size, delta.size_bytes)))
    _check_wanted(header, full, limits)
    _check_base(header, base)
    pieces = _patched(base, delta, header) if header.method == "zstd-patch" else _added(base, delta, header)
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
        yield piece
    if found.hexdigest() != header.full.sha256:
        raise IntegrityError(
            f"the delta led to SHA-256 {found.hexdigest()}; expected {header.full.sha256}", fix=FETCH_FULL
        )


def _check_wanted(header: Header, full: Identity | None, limits: Limits) -> None:
    if full is not None and header.full != full:
        raise IntegrityError(
            f"the delta leads to {_words(header.full)}; expected {_words(full)}",
            fix=FETCH_FULL,
        )
    if header.full.size_bytes > limits.full_bytes:
        raise InputError(
            f"the delta leads to a file of {header.full.size_bytes} bytes; at most {limits.full_bytes} are allowed",
            fix="raise Limits.full_bytes if a file of this size is meant",
        )


def _check_base(header: Header, base: Source) -> None:
    found = Identity(sha256_of(base), base.size_bytes) if base.size_bytes == header.base.size_bytes else None
    if found != header.base:
        what = f"{base.size_bytes} bytes" if found is None else _words(found)
        raise InputError(
            f"the delta is for an old file with {_words(header.base)}; this one has {what}",
            fix="apply it to the file that it was made from, or fetch the full file",
        )


def _words(file: Identity) -> str:
    return f"SHA-256 {file.sha256}, {file.size_bytes} bytes"


def _patched(base: Source, delta: Source, header: Header) -> Iterator[bytes]:
    """Yield the new file of a zstd patch. Memory: the old file and a window as large as the new one."""
    sections = Sections(delta)
    patch = sections.next("patch")
    sections.end()
    size = header.full.size_bytes
    reader = FrameReader(
        patch, size, name="patch", maximum_window_bytes=size, base=base.read_at(0, header.base.size_bytes)
    )
    yield from reader.chunks(size)
    reader.end()


def _added(base: Source, delta: Source, header: Header) -> Iterator[bytes]:
    """Yield the new file of typed differences. Memory: what is no weight, old and new, and a window per plane."""
    sections = Sections(delta)
    plan = _read_plan(sections.next("plan"), header)
    rest = _open_rest(sections.next("rest"), plan, base, header)
    planes = {width: _open_planes(sections, width, plan.plane_bytes(width)) for width in WIDTHS}
    sections.end()
    regions = iter(plan.regions)
    for _, size in plan.new_gaps(header.full.size_bytes):
        yield from rest.chunks(size)
        region = next(regions, None)
        if region is not None:
            yield from _add(base, region, planes[region.width])
    for reader in (rest, *(plane for group in planes.values() for plane in group)):
        reader.end()


def _read_plan(part: Part, header: Header) -> Plan:
    reader = FrameReader(part, None, name="plan", maximum_window_bytes=MAXIMUM_REGIONS * REGION_BYTES)
    raw = reader.read(reader.left)
    reader.end()
    return decode_plan(raw, old_bytes=header.base.size_bytes, new_bytes=header.full.size_bytes)


def _open_rest(part: Part, plan: Plan, base: Source, header: Header) -> FrameReader:
    size = header.full.size_bytes - plan.covered_bytes
    old_rest = read_gaps(base, plan.old_gaps(header.base.size_bytes))
    return FrameReader(part, size, name="rest", maximum_window_bytes=size, base=old_rest)


def _open_planes(sections: Sections, width: int, size: int) -> list[FrameReader]:
    if not size:
        return []
    names = [f"plane {index} of {width}-byte elements" for index in range(width)]
    return [
        FrameReader(sections.next(name), size, name=name, maximum_window_bytes=PLANE_WINDOW_BYTES) for name in names
    ]


def _add(base: Source, region: Region, planes: list[FrameReader]) -> Iterator[bytes]:
    """Yield one region: old elements plus differences."""
    step = CHUNK_BYTES // region.width
    for start in range(0, region.count, step):
        count = min(step, region.count - start)
        old = base.read_at(region.old_offset + start * region.width, count * region.width)
        yield from_planes(old, [plane.read(count) for plane in planes])
