"""Commands that have actions, such as `tidegate channel promote`: each action's help ends with its own example."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


CONTINUED = "\0"
"""Stands for the end of a line that goes on."""


def add_action(
    actions: _SubParsersAction[argparse.ArgumentParser], command: str, name: str, *, summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add an action and return its parser.

    Args:
        actions: of the command's parser.
        command: such as `channel`.
        name: such as `promote`.
        summary: one line.
        examples: of the whole command, a line each, which may go on behind a backslash; the action's own are shown.
    """
    whole = examples.replace("\\\n", CONTINUED).splitlines()
    own = [line for line in whole if f"{line} ".startswith(f"tidegate {command} {name} ")]
    return actions.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="example:\n" + "\n".join(f"  {line}" for line in own).replace(CONTINUED, "\\\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
