"""What of a bundle goes on a channel, after the bundle has proven itself once more."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.bundle import Bundle, Manifest
from tidegate.errors import BundleError
from tidegate.release.offers import Release
from tidegate.release.track import FileReference, OfferedVariant


@dataclass(frozen=True)
class Content:
    """One release, ready to be stored."""

    release: Release
    """what the track will say about it"""
    golden: str
    """how the golden fixture fared, in words"""
    manifest: bytes
    """byte for byte as in the bundle"""
    bundle: Bundle
    """open while the content is used"""

    def files(self) -> Iterator[bytes]:
        """Yield the content of every file, one at a time, the manifest last."""
        for listed in self.bundle.files:
            yield self.bundle.read(listed.path)
        yield self.manifest


@contextmanager
def read_content(path: Path) -> Iterator[Content]:
    """Open a bundle, check every digest, run the golden fixture where a runtime is installed.

    Raises:
        BundleError: the bundle breaks its format, is marked as failing, or a variant does not reproduce the fixture.
        NotFoundError: nothing is there.
    """
    with Bundle.open(path) as bundle:
        _check_passing(bundle)
        bundle.verify_files()
        yield Content(_release(bundle), _run_golden(bundle), bundle.manifest_bytes, bundle)


def _check_passing(bundle: Bundle) -> None:
    if bundle.manifest.failing:
        raise BundleError(
            f"{bundle.path} is marked as failing: it was built with --allow-failing; expected a bundle that passed",
            fix="mend the model or its criteria and build it again; `tidegate inspect` shows the verdicts",
        )


def _run_golden(bundle: Bundle) -> str:
    if bundle.manifest.golden is None:
        return "the bundle has no golden fixture"
    from tidegate.runtime.verify import verify_bundle

    reports = verify_bundle(bundle)
    failed = [report for report in reports if report.status == "failed"]
    if failed:
        raise BundleError(
            f"{bundle.path}: variant {failed[0].id!r} does not reproduce the golden fixture: {failed[0].problem}",
            fix="build the bundle again; `tidegate verify` shows every variant",
        )
    passed = [report.id for report in reports if report.status == "passed"]
    skipped = [report.id for report in reports if report.status == "not runnable"]
    told = f"passed by {', '.join(passed)}" if passed else "run by no variant"
    return f"{told}; not runnable here: {', '.join(skipped)}" if skipped else told


def _release(bundle: Bundle) -> Release:
    manifest: Manifest = bundle.manifest
    raw = bundle.manifest_bytes
    return Release(
        model=manifest.name,
        version=manifest.version,
        counter_floor=manifest.release,
        bundle_schema=manifest.schema,
        manifest=FileReference(sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw)),
        variants=tuple(
            OfferedVariant(
                id=variant.id,
                backend=variant.backend,
                precision=variant.precision,
                sha256=variant.sha256,
                size_bytes=variant.size_bytes,
                minimum_runtime=variant.minimum_runtime,
                hardware=variant.hardware,
            )
            for variant in manifest.variants
        ),
        rss_mb=math.ceil(manifest.budgets.rss_mb) if manifest.budgets else 0,
    )
