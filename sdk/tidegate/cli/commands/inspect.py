"""`tidegate inspect`: show what a bundle says about itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidegate.bundle import Bundle, Manifest, TensorSpec, Variant
from tidegate.bundle.difference import differences, only_the_version
from tidegate.bundle.manifest import json_schema
from tidegate.cli.files import read_file
from tidegate.cli.printing import print_json, print_table
from tidegate.cli.quality import print_profile, print_quality, printable
from tidegate.convert.mirroring import facts_in, without
from tidegate.convert.mirrors.facts import to_strings
from tidegate.convert.spec import BACKEND_BY_SUFFIX
from tidegate.errors import ConfigError, NotFoundError
from tidegate.profile import decode

DESCRIPTION = """Show the manifest of a bundle: identity, signature, labels, front end, prefilter, decoder, variants,
golden fixture, assets, metrics, parity, acceptance criteria and reference profile. The layout is checked; digests and
models are checked by `tidegate verify`. --diff says in words what changed between two releases. For an .onnx or .tflite
file that came out of a bundle, show which one."""

EXAMPLE = """tidegate inspect voice-commands.tide
tidegate inspect voice-commands.tide --json
tidegate inspect --diff voice-commands-1.2.0.tide voice-commands-1.3.0.tide
tidegate inspect --schema > bundle-schema.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        metavar="BUNDLE",
        help="a .tide file, a bundle directory, or a model file out of one",
    )
    parser.add_argument(
        "--diff", nargs=2, type=Path, metavar=("OLD", "NEW"), help="say what changed between two bundles"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest, or the changes, as JSON")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of manifests, and no bundle")


def run(arguments: argparse.Namespace) -> int:
    """Open, print."""
    if arguments.schema:
        print_json(json_schema())
        return 0
    if arguments.diff is not None:
        if arguments.bundle is not None:
            raise ConfigError(
                f"{arguments.bundle} was given beside the two of --diff", fix="inspect it in a command of its own"
            )
        return _diff(*arguments.diff, as_json=arguments.json)
    if arguments.bundle is None:
        raise ConfigError("there is nothing to inspect", fix="name a .tide file or a bundle directory")
    if arguments.bundle.suffix in BACKEND_BY_SUFFIX and arguments.bundle.is_file():
        return _stray_model(arguments.bundle, as_json=arguments.json)
    with Bundle.open(arguments.bundle) as bundle:
        manifest = bundle.manifest
        if arguments.json:
            print_json(manifest)
            return 0
        _print_pairs(manifest)
        print()
        _print_signature(manifest)
        print()
        print_table(
            ("variant", "backend", "precision", "bytes", "sha256", "file"),
            [
                (v.id, v.backend, printable(v.precision), f"{v.size_bytes:,}", v.sha256[:12], v.file)
                for v in manifest.variants
            ],
        )
        _print_other_files(manifest)
        print_quality(manifest)
        profile = bundle.reference_profile()
        if profile is not None:
            print_profile(decode(profile, origin=f"{arguments.bundle}: reference profile"))
    return 0


def _stray_model(path: Path, *, as_json: bool) -> int:
    """Say which release a model file comes from, by the mirror that `build` left in it."""
    facts = facts_in(BACKEND_BY_SUFFIX[path.suffix], read_file(path, "BUNDLE"), origin=str(path))
    if facts is None:
        raise NotFoundError(
            f"{path} is not a .tide archive, and carries no mirror of a manifest either",
            fix="inspect its bundle; `tidegate build` makes one from a model file",
        )
    if as_json:
        print_json(facts)
        return 0
    print("what the bundle that this file comes from said of it; nothing here is checked by a digest")
    for name, value in to_strings(facts).items():
        print(f"{name}: {printable(value)}")
    return 0


def _diff(old: Path, new: Path, *, as_json: bool) -> int:
    with Bundle.open(old) as before, Bundle.open(new) as after:

        def same_model(one: Variant, other: Variant) -> bool:
            contents = ((one, before.variant_bytes(one.id)), (other, after.variant_bytes(other.id)))
            first, second = (without(variant, content) for variant, content in contents)
            return first == second

        changes = differences(before.manifest, after.manifest, same_model)
        if as_json:
            print_json(
                {
                    "before": _release(before.manifest),
                    "after": _release(after.manifest),
                    "only_the_version": only_the_version(changes),
                    "changes": changes,
                }
            )
            return 0
        print(f"{before.manifest.name} {before.manifest.version} -> {after.manifest.name} {after.manifest.version}")
        if only_the_version(changes):
            print("nothing changed but the version" if changes else "nothing changed")
            return 0
        print_table(("section", "change"), [(change.section, printable(change.sentence)) for change in changes])
    return 0


def _release(manifest: Manifest) -> dict[str, object]:
    return {"name": manifest.name, "version": manifest.version, "release": manifest.release}


def _print_pairs(manifest: Manifest) -> None:
    pairs = [(name, value) for name, value in _pairs(manifest) if value]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{printable(name).ljust(width)}  {printable(value)}")


def _pairs(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "name", manifest.name
    yield "version", manifest.version
    yield "release", str(manifest.release)
    yield "description", manifest.description
    yield "licence", manifest.licence
    yield "failing", "yes: criteria or parity did not pass; built with --allow-failing" if manifest.failing else ""
    yield "labels", f"{len(manifest.labels)}: {' '.join(manifest.labels)}" if manifest.labels else ""
    yield "front end", _settings(manifest.front_end)
    yield "prefilter", _settings(manifest.prefilter)
    yield "decoder", _settings(manifest.decoder)
    yield "budgets", _settings(manifest.budgets)
    yield "trial", _settings(manifest.trial)
    yield from ((f"provenance {name}", value) for name, value in sorted(manifest.provenance.items()))


def _settings(struct: msgspec.Struct | None) -> str:
    """Return every setting as `name=value`, defaults included: what is not shown cannot be judged."""
    if struct is None:
        return ""
    return " ".join(f"{name}={_value(value)}" for name, value in msgspec.structs.asdict(struct).items() if value != "")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item:g}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_signature(manifest: Manifest) -> None:
    sides = (("input", manifest.signature.inputs), ("output", manifest.signature.outputs))
    print_table(
        ("tensor", "name", "dtype", "shape", "rule"),
        [
            (side, printable(spec.name), spec.dtype, _shape(spec), "finite" if spec.finite else "")
            for side, specs in sides
            for spec in specs
        ],
    )


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("any" if size == -1 else str(size) for size in spec.shape) + "]"


def _print_other_files(manifest: Manifest) -> None:
    rows = [
        (f"asset {printable(name)}", f"{asset.size_bytes:,}", asset.sha256[:12], asset.file)
        for name, asset in sorted(manifest.assets.items())
    ]
    if manifest.golden is not None:
        golden = manifest.golden
        tolerances = {"": golden.tolerance, **golden.tolerance_by_variant}
        stated = ", ".join(f"{id + ': ' if id else ''}{tolerance:g}" for id, tolerance in tolerances.items())
        rows.insert(0, (f"golden (tolerance {stated})", f"{golden.size_bytes:,}", golden.sha256[:12], golden.file))
    if manifest.reference_profile is not None:
        profile = manifest.reference_profile
        rows.append(("reference profile", f"{profile.size_bytes:,}", profile.sha256[:12], profile.file))
    if rows:
        print()
        print_table(("other file", "bytes", "sha256", "file"), rows)
