"""What a listener is put together from: the model, the catalogue, the connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.bundle import Bundle
from tidegate.edge.versions import ActiveVersions, SpeechVersion, load_catalogue
from tidegate.errors import ConfigError, DependencyError, InputError, NotFoundError, ResourceError
from tidegate.speech import Catalogue, Transcriber

if TYPE_CHECKING:
    from tidegate.client import Client, TlsSettings
    from tidegate.edge.update.report import Reporter
    from tidegate.runtime import Model


def load_version(
    bundle: str | Path, variant: str | None, threads: int | None, own_catalogue: Catalogue | None, *, required: bool
) -> tuple[SpeechVersion, str]:
    """Load a bundle; with a server at hand, a missing runtime only gives the reason why there is no model.

    Args:
        bundle: `.tide` file or directory.
        variant: of the model; None for the first that can run.
        threads: of the model.
        own_catalogue: instead of the bundle's; the caller closes it.
        required: without a model there is nothing.

    Raises: what `Bundle.open`, `tidegate.runtime.load` and `Transcriber` raise.
    """
    with ExitStack() as held, Bundle.open(bundle) as release:
        model, why_no_model = _load_model(release, variant, threads, required=required)
        if model is not None:
            held.enter_context(model)
        catalogue = own_catalogue
        if catalogue is None:
            catalogue = load_catalogue(release)
            if catalogue is not None:
                held.callback(catalogue.close)
        version = SpeechVersion(
            release.manifest,
            Transcriber(model) if model else None,
            catalogue,
            model.variant_id if model else "",
            model.runtime if model else "",
            held.pop_all(),
        )
    return version, why_no_model


def follow(
    device: str | Path, threads: int | None, own_catalogue: Catalogue | None, on_warning: Callable[[str], None]
) -> ActiveVersions:
    """Follow the active version of a device. Raises what `ActiveModel` and `ActiveVersions` raise."""
    from tidegate.edge.update.active import ActiveModel

    with ExitStack() as opened:
        active = opened.enter_context(ActiveModel(device, threads=threads))
        versions = ActiveVersions(active, own_catalogue, on_warning)
        opened.pop_all()
        return versions


def _load_model(
    release: Bundle, variant: str | None, threads: int | None, *, required: bool
) -> tuple[Model | None, str]:
    from tidegate.runtime import load

    try:
        return load(release, variant=variant, threads=threads), ""
    except DependencyError as error:
        if required:
            raise
        return None, error.message


def read_catalogue(path: str | Path) -> Catalogue:
    """Return the catalogue in a JSON Lines file."""
    return Catalogue.from_jsonl(_read(Path(path)), origin=str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file", fix="check the path of the catalogue") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory; expected a JSON Lines file", fix="name one file in it") from error
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from error


def connect(
    target: str | None,
    timeout_s: float,
    reporter: Reporter,
    tls: TlsSettings | None,
    token: str | Callable[[], str] | None,
) -> Client | None:
    """Return a client for HOST:PORT that reports what runs here; nothing is sent yet.

    Raises:
        ConfigError: the address, a TLS file or the token cannot be used, or TLS or a token is given without an address.
    """
    if target is None:
        if tls is not None or token is not None:
            raise ConfigError(
                "TLS or a token for a server is given, and no server",
                fix="name the server as HOST:PORT, or leave it out",
            )
        return None
    from tidegate.client import Client

    return Client(target, timeout_s=timeout_s, tls=tls, token=token, report=reporter.headers)
