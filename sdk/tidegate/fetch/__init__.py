"""Verified content from a channel: what fits here, what is here already, and how the rest gets here.

The device's updater and the server use it alike. This import loads nothing that talks to a network:
`tidegate.fetch.trusted` and `.download` do, and need `tidegate[update]`.
"""

from tidegate.fetch.installed import installed_files, open_installed
from tidegate.fetch.store import Store

__all__ = ["Store", "installed_files", "open_installed"]
