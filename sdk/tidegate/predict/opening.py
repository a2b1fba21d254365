"""From a bundle and a source to what answers its rows."""

from __future__ import annotations

from tidegate.bundle import Bundle, Variant
from tidegate.errors import ConfigError
from tidegate.predict.plan import make_plan
from tidegate.predict.predictor import Answerer, Predictor
from tidegate.predict.settings import PredictSettings
from tidegate.predict.sources import Source
from tidegate.predict.sources.directory import DirectorySource
from tidegate.runtime import load, runnable_variants


def open_answerer(bundle: Bundle, source: Source, settings: PredictSettings) -> tuple[Answerer, dict[str, str]]:
    """Load the model, or for audio files and a speech bundle the device's whole pipeline.

    Args:
        bundle: open; it may be closed afterwards.
        source: the rows.
        settings: variant, columns, batches.

    Returns:
        What answers, to be closed by the caller, and what it is: names, versions, digest.

    Raises:
        As `tidegate.runtime.load` and `make_plan`.
    """
    manifest = bundle.manifest
    is_speech = manifest.front_end is not None and manifest.decoder is not None
    if is_speech and isinstance(source, DirectorySource) and source.is_audio:
        return _open_speech(bundle, settings)
    model = load(bundle, variant=settings.variant, backend=settings.backend, threads=settings.threads)
    try:
        plan = make_plan(model.signature, source.columns, settings)
    except BaseException:
        model.close()
        raise
    facts = _facts(bundle, bundle.variant(model.variant_id))
    return Predictor(model, plan), facts | {"runtime": model.runtime, "provider": model.provider}


def _open_speech(bundle: Bundle, settings: PredictSettings) -> tuple[Answerer, dict[str, str]]:
    from tidegate.edge import Listener
    from tidegate.predict.speech import SpeechPredictor
    from tidegate.runtime import installed_backends

    if settings.columns:
        raise ConfigError("a speech bundle takes audio files whole; there is no column to map", fix="leave it out")
    variant = settings.variant
    if variant is None and settings.backend is not None:
        fitting = [item.id for item in runnable_variants(bundle.manifest) if item.backend == settings.backend]
        if not fitting:
            raise ConfigError(f"no variant of backend {settings.backend!r} runs here", fix="leave the backend out")
        variant = fitting[0]
    listener = Listener.open(bundle.path, variant=variant, threads=settings.threads, maximum_results=0)
    chosen = bundle.variant(listener.variant_id)
    facts = _facts(bundle, chosen) | {"runtime": installed_backends()[chosen.backend]}
    return SpeechPredictor(listener), facts


def _facts(bundle: Bundle, variant: Variant) -> dict[str, str]:
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "version": manifest.version,
        "variant": variant.id,
        "variant_sha256": variant.sha256,
    }
