"""What a listener is put together from: the model, the catalogue, the connection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.bundle import Bundle
from tidegate.errors import DependencyError, InputError, NotFoundError, ResourceError
from tidegate.speech import Catalogue

if TYPE_CHECKING:
    from tidegate.client import Client
    from tidegate.edge.update.report import Reporter
    from tidegate.runtime import Model

CATALOGUE_ASSET = "catalogue"


def load_model(
    release: Bundle, variant: str | None, threads: int | None, *, required: bool
) -> tuple[Model | None, str]:
    """Return the model; with a server at hand, a missing runtime only gives the reason why there is none."""
    from tidegate.runtime import load

    try:
        return load(release, variant=variant, threads=threads), ""
    except DependencyError as error:
        if required:
            raise
        return None, error.message


def load_catalogue(release: Bundle, own: str | Path | None) -> Catalogue | None:
    """Return the catalogue in the file `own`, else the bundle's, else None."""
    if own is not None:
        return Catalogue.from_jsonl(_read(Path(own)), origin=str(own))
    asset = release.asset(CATALOGUE_ASSET)
    return None if asset is None else Catalogue.from_jsonl(asset, origin=f"{release.path}: catalogue")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file", fix="check the path of the catalogue") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory; expected a JSON Lines file", fix="name one file in it") from error
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from error


def connect(target: str | None, timeout_s: float, reporter: Reporter) -> Client | None:
    """Return a client for HOST:PORT that reports what runs here; nothing is sent yet."""
    if target is None:
        return None
    from tidegate.client import Client

    return Client(target, timeout_s=timeout_s, report=reporter.headers)
