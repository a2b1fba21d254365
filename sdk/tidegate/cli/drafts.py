"""Drafts on the command line: `--draft FILE`, and what is printed for those who sign in turns."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from tidegate.cli.files import read_file
from tidegate.cli.printing import print_json
from tidegate.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from tidegate.release.draft import Draft
    from tidegate.release.draft_report import DraftReport, SignaturesReport


def add_draft(parser: argparse.ArgumentParser) -> None:
    """Add `--draft`."""
    parser.add_argument(
        "--draft",
        type=Path,
        metavar="FILE",
        help="change nothing that clients see; write what is to be signed into a new FILE, for several holders of keys "
        "to sign in turns: `tidegate keys sign`, then `tidegate keys apply`",
    )


def check_new_draft(path: Path | None) -> None:
    """Refuse, before any work, a name that is taken, since there may be signatures in it, or that cannot be written.

    Raises:
        ConfigError: a file is there.
        NotFoundError: its directory is not.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent} is not a directory", fix="make it first, or name another with --draft")
    if path.exists():
        raise ConfigError(f"{path} is there already; a draft is never overwritten", fix="name a new file with --draft")


def read_draft_file(path: Path) -> Draft:
    """Read a draft.

    Raises:
        BundleError: it is not one.
        NotFoundError: nothing is there.
    """
    from tidegate.release.draft import read_draft

    return read_draft(read_file(path, "FILE"), origin=str(path))


def write_draft_file(path: Path, draft: Draft) -> None:
    """Write a draft, in place of one of that name, in one step."""
    from tidegate.release.disk import Disk, store

    store(Disk(), path, draft.to_bytes())


def print_draft(path: Path, draft: Draft, as_json: bool) -> None:
    """Print what a draft says, who has signed it, and what is to be done next."""
    from tidegate.release.draft_report import describe

    if as_json:
        print_json({"draft": str(path), **structs.asdict(describe(draft))})
        return
    print_content(path, draft)
    print_signatures(path, draft)


def print_content(path: Path, draft: Draft) -> None:
    """Print what a draft says: all of it, since marks of what is new are only as good as what it claims to build on."""
    from tidegate.release.draft_report import describe

    found = describe(draft)
    print(f"{path}: builds on {found.builds_on}")
    for document in found.documents:
        print(f"{document.name}, expires {document.expires:%Y-%m-%d %H:%M} UTC")
        for line in document.content:
            print(f"  {line}")
    sys.stdout.flush()


def print_signatures(path: Path, draft: Draft) -> None:
    """Print who has signed, and what is to be done next."""
    from tidegate.release.draft_report import describe

    found = describe(draft)
    print("signatures")
    for document in found.documents:
        for one in document.signatures:
            print(f"  {document.name}, as {one.asked_by} asks: {_progress(one)}")
    sys.stderr.write(f"nothing has changed for clients; {_next(path, found)}\n")


def _progress(one: SignaturesReport) -> str:
    words = f"needs {one.threshold}, has {len(one.signed)}"
    if one.signed:
        words += f" by {', '.join(keyid[:8] for keyid in one.signed)}"
    if one.missing:
        words += f"; may sign: {', '.join(keyid[:8] for keyid in one.waiting)}"
    return words


def _next(path: Path, found: DraftReport) -> str:
    if not found.complete:
        return f"next: `tidegate keys sign {path} --keys …` by another holder"
    keys = f" --keys … of {' and '.join(found.online)}" if found.online else ""
    return f"all signatures are there; next: `tidegate keys apply {path} --channel DIR{keys}`"
