"""Make a directory a device: its settings, what it trusts, and the factory version that never goes away."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tidegate.bundle import Bundle, Manifest, Variant, digest
from tidegate.bundle.atomic import sync_directory, write_atomically
from tidegate.bundle.bundle import listed_files
from tidegate.edge.update.device import utc_now
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.lock import exclusive
from tidegate.edge.update.record import SCHEMA, Record, Slot, encode, write_record
from tidegate.edge.update.settings import DeviceSettings, write_settings
from tidegate.edge.update.slots import verify
from tidegate.edge.update.states import State
from tidegate.errors import ConfigError, DependencyError, ModelError, ResourceError
from tidegate.fetch.store import Store


def initialise(
    directory: str | Path,
    settings: DeviceSettings,
    trusted_root: bytes,
    factory_bundle: str | Path | Bundle,
    *,
    variant: str = "",
) -> Slot:
    """Set a device up, offline, and return its factory slot, which is active.

    The factory version must run here: it is held against its golden fixture, in this process. When this is interrupted,
    the same call completes it.

    Args:
        directory: made when missing.
        settings: become `device.json`.
        trusted_root: the channel's `metadata/N.root.json`, as shipped with the app; all trust begins there.
        factory_bundle: the version to start with, and the last one to fall back to.
        variant: which of its variants; default: the first one that this device can run.

    Raises:
        ConfigError: the directory is a device already, or holds other things; the root is none; or the bundle holds
            another model than the settings name.
        StateError: somebody else is setting it up.
        NotFoundError: no bundle, or no such variant.
        BundleError: the bundle is damaged.
        DependencyError: no variant can run here.
        ModelError: the variant does not reproduce the golden fixture.
        ResourceError: the disk refuses.
    """
    _check_root(trusted_root)
    if isinstance(factory_bundle, Bundle):
        return _initialise(Layout(Path(directory)), settings, trusted_root, factory_bundle, variant)
    with Bundle.open(factory_bundle) as bundle:
        return _initialise(Layout(Path(directory)), settings, trusted_root, bundle, variant)


def _initialise(layout: Layout, settings: DeviceSettings, trusted_root: bytes, bundle: Bundle, variant: str) -> Slot:
    chosen = _chosen(bundle, settings, variant)
    _check_runs(bundle, chosen)
    _make_directory(layout)
    with exclusive(layout.lock):
        if layout.state.exists():
            raise ConfigError(
                f"{layout.directory} is a device already", fix="use it as it is, or set up another directory"
            )
        slot = _install(layout.store, settings, bundle, chosen)
        write_settings(layout.settings, settings)
        write_atomically(layout.trusted_root, [trusted_root])
        write_atomically(layout.factory, [encode(slot)])
        write_record(layout.state, Record(schema=SCHEMA, phase=State.IDLE, active=slot, factory=slot))
    return slot


def _chosen(bundle: Bundle, settings: DeviceSettings, variant: str) -> Variant:
    from tidegate.runtime import runnable_variants

    if bundle.manifest.name != settings.model:
        raise ConfigError(
            f"the factory bundle holds model {bundle.manifest.name!r}; the settings name {settings.model!r}",
            fix="correct the settings, or take another bundle",
        )
    if variant:
        return bundle.variant(variant)
    fitting = [
        one
        for one in runnable_variants(bundle.manifest)
        if not one.hardware or set(one.hardware) & set(settings.hardware)
    ]
    if not fitting:
        known = ", ".join(f"{one.id} ({one.backend})" for one in bundle.manifest.variants)
        raise DependencyError(
            f"no variant of the factory bundle can run here; it has {known}",
            fix='install a runtime, such as `pip install "tidegate[litert]"`, or name the hardware tags of this device',
        )
    return fitting[0]


def _check_runs(bundle: Bundle, variant: Variant) -> None:
    from tidegate.runtime.verify import verify_bundle

    (report,) = verify_bundle(bundle, variant=variant.id)
    if report.status == "not runnable":
        raise DependencyError(f"the factory version cannot run here: {report.problem}", fix="install its runtime")
    if report.status == "failed":
        raise ModelError(f"the factory version does not work here: {report.problem}", fix="take another bundle")


def _install(store: Store, settings: DeviceSettings, bundle: Bundle, variant: Variant) -> Slot:
    one_variant: Manifest = msgspec.structs.replace(bundle.manifest, variants=(variant,))
    files = [store.put(bundle.read(path)) for path in listed_files(one_variant)]
    now = utc_now()
    slot = Slot(
        model=bundle.manifest.name,
        track=settings.track,
        release=bundle.manifest.release,
        version=bundle.manifest.version,
        manifest_sha256=store.put(bundle.manifest_bytes),
        variant=variant.id,
        variant_sha256=variant.sha256,
        installed_at=now,
        activated_at=now,
        why="the factory version",
        files=tuple(sorted({*files, digest(bundle.manifest_bytes)})),
    )
    verify(store, slot)
    return slot


def _check_root(trusted_root: bytes) -> None:
    """Refuse what is plainly no root metadata; its signatures are checked with the first look at the channel."""
    try:
        kind = msgspec.json.decode(trusted_root, type=_Root).signed.type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the trusted root is no TUF metadata: {error}", fix=_ROOT) from error
    if kind != "root":
        raise ConfigError(f"the trusted root is {kind!r} metadata; expected 'root'", fix=_ROOT)


_ROOT = "give the channel's metadata/1.root.json"


class _Signed(msgspec.Struct):
    type: str = msgspec.field(name="_type")


class _Root(msgspec.Struct):
    signed: _Signed


def _make_directory(layout: Layout) -> None:
    """Make the directory; one that is there may hold only what a call before this one left."""
    ours = {path.name for path in (layout.settings, layout.trusted_root, layout.factory, layout.state, layout.lock)}
    ours.add(layout.store.directory.name)
    try:
        layout.directory.mkdir(parents=True, exist_ok=True)
        sync_directory(layout.directory.parent)
        strangers = sorted(
            path.name
            for path in layout.directory.iterdir()
            if path.name not in ours and not path.name.endswith(".part")
        )
    except FileExistsError as error:
        raise ConfigError(f"{layout.directory} is a file; expected a directory", fix="name another place") from error
    except OSError as error:
        raise ResourceError(
            f"{layout.directory} could not be made: {error.strerror or error}", fix="check the disk"
        ) from error
    if strangers and not layout.state.exists():
        raise ConfigError(
            f"{layout.directory} holds {strangers[0]!r}, so it is something else", fix="name an empty or new directory"
        )
