"""`tidegate publish`: offer a bundle on a track of a channel."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidegate.cli.drafts import check_new_draft
from tidegate.cli.signing import add_change, add_deltas, key_ring, print_change

DESCRIPTION = """Verify a bundle (digests, schema, golden fixture on every variant that runs here), store its files in
the channel by content, and offer it on a track. What clients see changes in one step at the end. A command that was
cut short can be repeated; publishing the same bundle twice changes nothing."""

EXAMPLE = """tidegate publish voice-commands-1.1.0.tide --channel site --track stable --percent 10 --keys keys
tidegate publish voice-commands-1.2.0.tide --channel site --track beta --keys keys/targets.pem --staged
tidegate publish voice-commands-1.2.0.tide --channel site --track beta --keys anna.pem --draft beta-1.2.0.draft"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .tide file or a bundle directory")
    parser.add_argument("--track", required=True, help="such as stable or beta")
    parser.add_argument("--percent", type=int, default=100, help="share of the devices, 0 to 100 (default 100)")
    add_deltas(parser)
    add_change(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish and say what changed."""
    from tidegate.release.channel import Channel

    check_new_draft(arguments.draft)
    change = Channel(arguments.channel).publish(
        arguments.bundle,
        track=arguments.track,
        percent=arguments.percent,
        keys=key_ring(arguments),
        staged=arguments.staged,
        in_turns=arguments.draft is not None,
        delta_bases=arguments.deltas,
    )
    print_change(change, arguments)
    return 0
