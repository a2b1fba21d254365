"""Which file names a bundle may hold: relative, portable, inside the bundle."""

from __future__ import annotations

import re

MANIFEST_FILE = "manifest.json"

MAXIMUM_PATH_BYTES = 240
"""Leaves room for the directory in front within the 255 or 260 that file systems allow."""

_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_PORTABLE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')


def path_problem(path: str) -> str | None:
    """Return why `path` may not name a file of a bundle, or None when it may.

    The rules are those of the strictest system that a bundle may be unpacked on, so that a bundle made on one machine
    opens on all.
    """
    if not path:
        return "is empty"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    if _DRIVE.match(path):
        return "names a drive"
    if path.endswith("/"):
        return "names a directory, not a file"
    parts = path.split("/")
    if ".." in parts:
        return "leads out of the bundle"
    if "" in parts or "." in parts:
        return "holds an empty or '.' part"
    if _NOT_PORTABLE.search(path):
        return "holds a character that is not portable"
    if any(part.endswith((" ", ".")) for part in parts):
        return "has a part that ends with a space or a dot"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(encoded) > MAXIMUM_PATH_BYTES:
        return f"is {len(encoded)} bytes long, more than {MAXIMUM_PATH_BYTES}"
    return None
