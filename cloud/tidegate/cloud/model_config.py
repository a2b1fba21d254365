"""A served version as Triton's ModelConfig, and its counters as Triton's ModelStatistics, for Triton's own tools.

Where a bundle says more than Triton's form holds, or less:

- `max_batch_size` is the most rows that requests share, 0 for a model whose requests never do. As with Triton, `dims`
  leave the batch axis out where it is over 0. A request with more rows than that is not refused here, it runs alone.
- `platform` is the backend's name as in ModelMetadata; `backend` is what Triton calls the runtime.
- Versions are semantic ones and `version_policy.specific` holds whole numbers, so the policy is always shown as `all`.
- Queue and compute times are those of `tidegate.cloud.statistics`. There is no response cache, so its counts are 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.bundle.manifest import TensorSpec
from tidegate.cloud.fleet_statistics import total
from tidegate.cloud.repository import Repository
from tidegate.cloud.served import ServedModel
from tidegate.cloud.statistics import Counts, Duration
from tidegate.errors import NotFoundError
from tidegate.wire import messages

TRITON_BACKEND = {"onnx": "onnxruntime", "litert": "litert"}
"""Triton has no LiteRT backend; its field is free text."""

LABELS_FILE = "manifest.json"
"""What holds the labels of a bundle."""


def model_config(served: ServedModel) -> Any:
    """Return the ModelConfig of a version."""
    batched = served.batcher.batched
    config = messages.ModelConfig(
        name=served.name,
        platform=served.model.backend,
        backend=TRITON_BACKEND.get(served.model.backend, served.model.backend),
        max_batch_size=served.batcher.settings.maximum_rows if batched else 0,
        default_model_filename=_variant(served).file,
    )
    config.version_policy.all.SetInParent()
    config.model_transaction_policy.decoupled = False
    config.instance_group.add(name=served.name, count=1, kind="KIND_CPU")
    for name, value in (("version", served.version), ("variant", served.model.variant_id)):
        config.parameters[name].string_value = value
    for spec in served.signature.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched))
    for index, spec in enumerate(served.signature.outputs):
        labels = LABELS_FILE if served.manifest.labels and not index else ""
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched), label_filename=labels)
    if batched:
        _fill_batching(config.dynamic_batching, served)
    return config


def model_statistics(repository: Repository, name: str, version: str) -> Any:
    """Return the ModelStatisticsResponse for one version, all of a model, or all models.

    Raises:
        NotFoundError: no such model, version or label.
    """
    response, others = messages.ModelStatisticsResponse(), repository.elsewhere()
    for served in _chosen(repository, name, version):
        key = f"{served.name}/{served.version}"
        counts = total([served.statistics.read(), *(other[key] for other in others if key in other)])
        found = response.model_stats.add(
            name=served.name,
            version=served.version,
            last_inference=counts.last_inference_ms,
            inference_count=counts.inferences,
            execution_count=counts.executions,
        )
        _fill_counts(found, counts)
        if served.memory_bytes:
            found.memory_usage.add(type="CPU", id=0, byte_size=served.memory_bytes)
    return response


def _chosen(repository: Repository, name: str, version: str) -> Iterable[ServedModel]:
    if version:
        return (repository.find(name, version),)
    if not name:
        return repository.all()
    found = tuple(served for served in repository.all() if served.name == name)
    if not found:
        repository.find(name)
        raise NotFoundError(f"model {name!r} was unloaded just now", fix="list the repository")
    return found


def _fill_counts(found: Any, counts: Counts) -> None:
    stats = found.inference_stats
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        _fill(getattr(stats, name), getattr(counts, name))
    for name in ("cache_hit", "cache_miss"):
        getattr(stats, name).SetInParent()
    for rows, batch in sorted(counts.batches.items()):
        entry = found.batch_stats.add(batch_size=rows)
        for name in ("compute_input", "compute_infer", "compute_output"):
            _fill(getattr(entry, name), getattr(batch, name))


def _fill(message: Any, duration: Duration) -> None:
    message.count, message.ns = duration.count, duration.ns
    message.SetInParent()


def _fill_batching(batching: Any, served: ServedModel) -> None:
    settings = served.batcher.settings
    queue = settings.queue
    batching.preferred_batch_size.extend(settings.preferred_rows)
    batching.max_queue_delay_microseconds = round(settings.maximum_delay_ms * 1000)
    if queue.priority_levels > 1:
        batching.priority_levels = queue.priority_levels
        batching.default_priority_level = queue.default_priority
    policy = batching.default_queue_policy
    policy.timeout_action = policy.REJECT
    policy.default_timeout_microseconds = round(queue.timeout_s * 1e6)
    policy.allow_timeout_override = True
    policy.max_queue_size = queue.maximum_length


def _data_type(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"


def _dims(spec: TensorSpec, batched: bool) -> tuple[int, ...]:
    return spec.shape[1:] if batched else spec.shape


def _variant(served: ServedModel) -> Any:
    return next(variant for variant in served.manifest.variants if variant.id == served.model.variant_id)
