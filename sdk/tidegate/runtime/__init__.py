"""Load and run one variant of a bundle on whichever backend is installed."""

from tidegate.runtime.backends import installed_backends
from tidegate.runtime.loading import load, runnable_variants
from tidegate.runtime.model import Model

__all__ = ["Model", "installed_backends", "load", "runnable_variants"]
