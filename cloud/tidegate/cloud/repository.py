"""The models that a server holds, by name and version."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from tidegate.bundle import Bundle, Manifest
from tidegate.errors import ConfigError, ModelError, NotFoundError
from tidegate.runtime import Model, load
from tidegate.speech import Catalogue, Transcriber

CATALOGUE_ASSET = "catalogue"


@dataclass(frozen=True)
class ServedModel:
    """One loaded, warm version of a model."""

    manifest: Manifest
    model: Model
    transcriber: Transcriber | None
    """None: not a speech model"""
    catalogue: Catalogue | None

    @property
    def name(self) -> str:
        """The bundle's name, by which it is called."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    def close(self) -> None:
        """Free the model and the index."""
        self.model.close()
        if self.catalogue is not None:
            self.catalogue.close()


def load_served(
    path: Path, *, variant: str | None = None, threads: int | None = None, catalogue: bytes | None = None
) -> ServedModel:
    """Open a bundle, load one variant, and prove it on the golden fixture before anybody may call it.

    Args:
        path: bundle.
        variant: id; None for the first whose runtime is installed.
        threads: of the runtime; None for its default.
        catalogue: JSON lines that replace the bundle's own catalogue.

    Raises:
        NotFoundError, BundleError, IntegrityError, DependencyError: as `Bundle.open` and `tidegate.runtime.load`.
        InputError: the catalogue is not one.
        ModelError: the model does not load, or answers the golden inputs otherwise than the bundle promises.
    """
    with Bundle.open(path) as bundle:
        manifest = bundle.manifest
        is_speech = manifest.front_end is not None and manifest.decoder is not None
        raw_catalogue = catalogue if catalogue is not None else bundle.asset(CATALOGUE_ASSET)
        model = load(bundle, variant=variant, threads=threads)
        try:
            _warm_up(bundle, model)
            return ServedModel(
                manifest=manifest,
                model=model,
                transcriber=Transcriber(model) if is_speech else None,
                catalogue=Catalogue.from_jsonl(raw_catalogue) if is_speech and raw_catalogue is not None else None,
            )
        except BaseException:
            model.close()
            raise


class Repository:
    """Loaded models. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, ServedModel]] = {}
        """by name, then by version, lowest version first"""

    def add(self, served: ServedModel) -> None:
        """Add a loaded version.

        Raises:
            ConfigError: the same name and version is there already.
        """
        with self._lock:
            versions = self._models.get(served.name, {})
            if served.version in versions:
                raise ConfigError(
                    f"model {served.name!r} version {served.version} is given twice",
                    fix="give each version of a model once",
                )
            by_version = versions | {served.version: served}
            self._models[served.name] = {
                version: by_version[version] for version in sorted(by_version, key=version_key)
            }

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a model; the highest version when `version` is empty.

        Raises:
            NotFoundError: no such model or version; the message names those that exist.
        """
        with self._lock:
            versions = self._models.get(name)
            if versions is None:
                known = ", ".join(self._models) or "none"
                raise NotFoundError(f"there is no model {name!r}; models: {known}", fix="ask for one of these")
            if version and version not in versions:
                raise NotFoundError(
                    f"model {name!r} has no version {version!r}; versions: {', '.join(versions)}",
                    fix="ask for one of these, or leave the version empty for the highest",
                )
            return versions[version or next(reversed(versions))]

    def only_name(self) -> str:
        """Return the name of the only model; empty when there are several or none."""
        with self._lock:
            return next(iter(self._models)) if len(self._models) == 1 else ""

    def find_speech(self, name: str = "", version: str = "") -> ServedModel:
        """Return a speech model; the one that was added first when `name` is empty.

        Raises:
            NotFoundError: no such model or version, or it is not a speech model.
        """
        speech = [served.name for served in self.all() if served.transcriber is not None]
        if not name and not speech:
            raise NotFoundError("this server has no speech model", fix="serve a bundle with a front end and a decoder")
        served = self.find(name or speech[0], version)
        if served.transcriber is None:
            raise NotFoundError(
                f"model {served.name!r} version {served.version} is not a speech model; "
                f"speech models: {', '.join(dict.fromkeys(speech)) or 'none'}",
                fix="ask for one of these",
            )
        return served

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model, lowest first; empty when there is no such model."""
        with self._lock:
            return tuple(self._models.get(name, {}))

    def all(self) -> tuple[ServedModel, ...]:
        """Return every model in the order of adding, its versions together, lowest first."""
        with self._lock:
            return tuple(served for versions in self._models.values() for served in versions.values())

    def close(self) -> None:
        """Free every model and forget it."""
        served_models = self.all()
        with self._lock:
            self._models.clear()
        for served in served_models:
            served.close()


def version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """Return a key that sorts semantic versions by precedence (Semantic Versioning 2.0.0, section 11)."""
    core, _, pre_release = version.partition("+")[0].partition("-")
    identifiers = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre_release.split(".") if part
    )
    return tuple(int(number) for number in re.findall(r"\d+", core)), not pre_release, identifiers


def _warm_up(bundle: Bundle, model: Model) -> None:
    """Run the golden inputs once: the first call pays for lazy set-up, and a broken model never becomes ready."""
    golden, promise = bundle.golden(), bundle.manifest.golden
    if golden is None or promise is None:
        return
    tolerance = promise.tolerance_by_variant.get(model.variant_id, promise.tolerance)
    worst = [error for error in golden.compare(model.run(golden.inputs), tolerance) if not error.within]
    if worst:
        raise ModelError(
            f"{bundle.path}: variant {model.variant_id} answers the golden inputs otherwise than promised: output "
            f"{worst[0].name!r} {worst[0].problem or f'is off by {worst[0].maximum_error:g}'}; "
            f"tolerance {tolerance:g}",
            fix="run `tidegate verify` on the bundle and serve another variant with --variant",
        )
