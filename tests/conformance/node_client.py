"""A Node client made from reflection alone, against our server.

    .venv/bin/python -m tests.conformance.node_client

Needs `node` and `npm`; the two packages that it uses are put into build/node and kept.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.conformance.foreign_servers import ROOT

from tidegate.cloud import Server
from tidegate.conformance import write_models

PROGRAM = Path(__file__).with_name("node")
TIMEOUT_S = 120


def main() -> int:
    """Install, serve, run; the exit code is Node's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "node", help="where the packages are kept")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for file in PROGRAM.iterdir():
        shutil.copy(file, directory)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=directory, check=True)
    with tempfile.TemporaryDirectory() as folder, Server(write_models(Path(folder))) as server:
        command = ["node", "client.js", server.address]
        return subprocess.run(command, cwd=directory, timeout=TIMEOUT_S, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
