"""Tidegate's verified client behind the command line that tuf-conformance asks for: init, refresh, download.

README.md beside this file says how the suite is run. Everything goes through `tidegate.fetch`: its transport, its
reader and its check of what came. Exit code 0 when all of it succeeded, 1 otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from tidegate.errors import IntegrityError, NotFoundError, TidegateError
from tidegate.fetch.settings import FetchSettings
from tidegate.fetch.trusted import ChannelReader, TargetInfo

# The suite's server answers at once or not at all, so no second try.
SETTINGS = FetchSettings(attempts=1)


def init(metadata_dir: Path, trusted_root: Path) -> None:
    """Keep the root beside the metadata, not in it: the suite takes each file there for a trusted role."""
    shutil.copyfile(trusted_root, _shipped_root(metadata_dir))


def refresh(metadata_dir: Path, metadata_url: str, targets_url: str) -> ChannelReader:
    """Refresh, from the root that `init` was given."""
    trusted_root = _shipped_root(metadata_dir).read_bytes()
    reader = ChannelReader(metadata_dir, metadata_url, trusted_root, SETTINGS, targets_url=targets_url)
    reader.refresh()
    return reader


def download(reader: ChannelReader, name: str, directory: Path) -> None:
    """Fetch one target unless it is there, and give it its name when it was checked."""
    target = reader.target(name)
    if target is None:
        raise NotFoundError(f"the repository has no target {name!r}")
    final = directory / quote(name, safe="")
    if not _is_current(target, final):
        partial = directory / ".partial"
        reader.receive(target, partial)
        target.check(partial)
        partial.replace(final)


def main() -> int:
    """Run one command."""
    arguments = _parser().parse_args()
    metadata_dir = Path(arguments.metadata_dir)
    try:
        if arguments.command == "init":
            init(metadata_dir, Path(arguments.trusted_root))
            return 0
        targets_url = arguments.target_base_url or arguments.metadata_url
        reader = refresh(metadata_dir, arguments.metadata_url, targets_url)
        if arguments.command == "download":
            for name in arguments.target_name:
                download(reader, name, Path(arguments.target_dir))
    except TidegateError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-url")
    parser.add_argument("--metadata-dir", required=True)
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-dir")
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root")
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


def _shipped_root(metadata_dir: Path) -> Path:
    return metadata_dir.parent / f"{metadata_dir.name}.shipped-root"


def _is_current(target: TargetInfo, file: Path) -> bool:
    if not file.exists():
        return False
    try:
        target.check(file)
    except IntegrityError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
