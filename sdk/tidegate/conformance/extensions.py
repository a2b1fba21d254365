"""Triton's extensions, where a server offers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidegate.conformance import streams
from tidegate.conformance.bench import Bench, offered, outputs_of
from tidegate.conformance.check import Check, Finding, Source, Verdict, failed, judged, not_offered
from tidegate.conformance.inference import needs_model
from tidegate.conformance.peer import Answer
from tidegate.wire import messages

COUNTED = 5

IN_FLIGHT = 20

METHOD_BY_EXTENSION = {
    "statistics": "ModelStatistics",
    "model_configuration": "ModelConfig",
    "model_repository": "RepositoryIndex",
    "trace": "TraceSetting",
    "logging": "LogSettings",
    "system_shared_memory": "SystemSharedMemoryStatus",
    "cuda_shared_memory": "CudaSharedMemoryStatus",
}
"""A method of each extension that changes nothing when it is called with an empty request."""

_NUMBERS = "iuf"


def _announced(bench: Bench) -> Finding:
    answer = bench.peer.call("ServerMetadata")
    if not answer.ok:
        return failed(str(answer))
    names = [name for name in answer.response.extensions if name in METHOD_BY_EXTENSION]
    absent = [name for name in names if bench.peer.call(METHOD_BY_EXTENSION[name]).code == "UNIMPLEMENTED"]
    if not names:
        return not_offered("no extension with a method is announced")
    return judged(not absent, f"announced and absent: {', '.join(absent)}" if absent else ", ".join(names))


def _config(bench: Bench) -> Answer:
    request = messages.ModelConfigRequest(name=bench.subject.name)
    return bench.once("config", lambda: bench.peer.call("ModelConfig", request))


def _config_names(bench: Bench) -> Finding:
    answer = _config(bench)
    if not answer.ok:
        return offered(answer) or failed(str(answer))
    config = answer.response.config
    subject = bench.subject
    inputs, outputs = ([tensor.name for tensor in side] for side in (config.input, config.output))
    fits = (
        config.name == subject.name
        and sorted(inputs) == sorted(spec.name for spec in subject.inputs)
        and sorted(outputs) == sorted(spec.name for spec in subject.outputs)
    )
    return judged(fits, f"{config.name}: {', '.join(inputs)} -> {', '.join(outputs)}")


def _config_tensors(bench: Bench) -> Finding:
    answer = _config(bench)
    if not answer.ok:
        return offered(answer) or failed(str(answer))
    config = answer.response.config
    leading = [-1] if config.max_batch_size > 0 else []
    described = {
        tensor.name: (_oip_datatype(tensor), leading + list(tensor.dims)) for tensor in (*config.input, *config.output)
    }
    specs = (*bench.subject.inputs, *bench.subject.outputs)
    wrong = [spec.name for spec in specs if described.get(spec.name) != (spec.dtype, list(spec.shape))]
    shown = ", ".join(f"{name} {datatype} {shape}" for name, (datatype, shape) in described.items())
    return judged(not wrong, f"max_batch_size {config.max_batch_size}: {shown}")


def _oip_datatype(tensor: Any) -> str:
    field = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number.get(tensor.data_type)
    name = "" if field is None else str(field.name).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _statistics(bench: Bench) -> Any:
    """Return the counters of the version that answers, or the answer that holds none."""
    version = bench.good.response.model_version if bench.good.ok else ""
    answer = bench.peer.call(
        "ModelStatistics", messages.ModelStatisticsRequest(name=bench.subject.name, version=version)
    )
    return answer.response.model_stats[0] if answer.ok and answer.response.model_stats else answer


def _statistics_grow(bench: Bench) -> Finding:
    if (nothing := bench.unusable()) is not None:
        return nothing
    before = _statistics(bench)
    if isinstance(before, Answer):
        return offered(before) or failed(str(before))
    for _ in range(COUNTED):
        bench.infer(bench.subject.request())
    after = _statistics(bench)
    if isinstance(after, Answer):
        return failed(str(after))
    grown = [
        after.inference_stats.success.count - before.inference_stats.success.count,
        after.inference_count - before.inference_count,
    ]
    runs = after.execution_count - before.execution_count
    return judged(
        min(grown) >= COUNTED and 0 < runs <= grown[1],
        f"success +{grown[0]}, inference_count +{grown[1]}, execution_count +{runs}",
    )


def _statistics_add_up(bench: Bench) -> Finding:
    if (nothing := bench.unusable()) is not None:
        return nothing
    found = _statistics(bench)
    if isinstance(found, Answer):
        return offered(found) or failed(str(found))
    runs = sum(batch.compute_infer.count for batch in found.batch_stats)
    rows = sum(batch.compute_infer.count * batch.batch_size for batch in found.batch_stats)
    stats = found.inference_stats
    parts = stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    whole = stats.success.ns + stats.fail.ns
    problems = []
    if found.batch_stats and (runs, rows) != (found.execution_count, found.inference_count):
        problems.append(f"batches have {runs} runs and {rows} rows")
    if found.execution_count > found.inference_count:
        problems.append("more runs than rows")
    if parts > whole:
        problems.append(f"queue and compute take {parts} ns of {whole}")
    if not found.last_inference:
        problems.append("last_inference is 0")
    shown = f"{found.execution_count} runs, {found.inference_count} rows"
    return judged(not problems, "; ".join([shown, *problems]))


def _index(bench: Bench) -> Finding:
    answer = bench.peer.call("RepositoryIndex")
    if not answer.ok:
        return offered(answer) or failed(str(answer))
    found = [f"{model.name} {model.version} {model.state}" for model in answer.response.models]
    states = {model.state for model in answer.response.models if model.name == bench.subject.name}
    return judged(
        "READY" in states, f"{len(found)} entries, {bench.subject.name}: {', '.join(sorted(states)) or 'none'}"
    )


@needs_model
def _classification(bench: Bench) -> Finding:
    numeric = [name for name, array in outputs_of(bench.good).items() if array.dtype.kind in _NUMBERS and array.size]
    if not numeric:
        return not_offered("the model has no output of numbers")
    request = bench.subject.request(outputs=[{"name": numeric[0]}])
    request.outputs[0].parameters["classification"].int64_param = 1
    answer = bench.infer(request)
    found = outputs_of(answer).get(numeric[0])
    if found is None:
        return judged(False, str(answer))
    if found.dtype.kind in _NUMBERS:
        return not_offered("the parameter changes nothing")
    words = [text.split(b":") for text in found.ravel().tolist()]
    array = outputs_of(bench.good)[numeric[0]]
    fits = bool(words) and all(len(word) in (2, 3) and word[1].isdigit() for word in words)
    if fits and len(words) == 1:
        fits = float(words[0][0]) == round(float(array.max()), 6)
    return judged(fits, ", ".join(text.decode(errors="replace") for text in found.ravel().tolist()[:3]))


def _settings(method: str) -> Callable[[Bench], Finding]:
    def probe(bench: Bench) -> Finding:
        answer = bench.peer.call(method)
        if not answer.ok:
            return offered(answer) or failed(str(answer))
        names = sorted(answer.response.settings)
        return judged(bool(names), ", ".join(names) or "no settings")

    return probe


@needs_model
def _reload_under_load(bench: Bench) -> Finding:
    if not bench.control:
        return not_offered("only with --with-control, since it unloads the model")
    futures = [bench.peer.begin(bench.subject.request(id=f"r{number}")) for number in range(IN_FLIGHT)]
    name = bench.subject.name
    unloaded = bench.peer.call("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name=name))
    answers = [bench.peer.finished(future) for future in futures]
    ready = bench.peer.call("ModelReady", messages.ModelReadyRequest(name=name))
    loaded = bench.peer.call("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name=name))
    again = bench.infer(bench.subject.request())
    if not unloaded.ok:
        return offered(unloaded) or failed(f"unload: {unloaded}")
    clean = [answer for answer in answers if answer.code in ("OK", "NOT_FOUND", "UNAVAILABLE")]
    away = not ready.ok or not ready.response.ready
    return judged(
        len(clean) == len(answers) and away and loaded.ok and again.ok,
        f"{sum(answer.ok for answer in answers)} of {len(answers)} in flight answered, "
        f"{'not ready' if away else 'ready'} after the unload, {again.code} after the load",
    )


_STATISTICS = "statistics extension"
_CONFIG = "model configuration extension"

CHECKS = (
    Check(
        "extensions.announced", Source.TRITON, "metadata lists the extensions", "what is listed is there", _announced
    ),
    Check("config.names", Source.TRITON, _CONFIG, "names as in the metadata", _config_names),
    Check(
        "config.tensors",
        Source.TRITON,
        _CONFIG,
        "datatypes and dims as in the metadata, less the batch axis",
        _config_tensors,
    ),
    Check("statistics.grow", Source.TRITON, _STATISTICS, f"{COUNTED} more after {COUNTED}", _statistics_grow),
    Check("statistics.add-up", Source.TRITON, _STATISTICS, "parts no more than the whole", _statistics_add_up),
    Check("repository.index", Source.TRITON, "model repository extension", "the model is READY", _index),
    Check(
        "repository.reload",
        Source.TRITON,
        "model repository extension",
        "in flight is finished or refused; away; back",
        _reload_under_load,
    ),
    Check("classification", Source.TRITON, "classification extension", "VALUE:INDEX of the highest", _classification),
    *streams.CHECKS,
    Check("settings.log", Source.TRITON, "logging extension", "settings", _settings("LogSettings")),
    Check("settings.trace", Source.TRITON, "trace extension", "settings", _settings("TraceSetting")),
    Check(
        "shared-memory.system",
        Source.TRITON,
        "system shared memory extension",
        "a status",
        lambda bench: _status(bench, "SystemSharedMemoryStatus"),
    ),
    Check(
        "shared-memory.cuda",
        Source.TRITON,
        "CUDA shared memory extension",
        "a status",
        lambda bench: _status(bench, "CudaSharedMemoryStatus"),
    ),
)


def _status(bench: Bench, method: str) -> Finding:
    answer = bench.peer.call(method)
    return offered(answer) or Finding(Verdict.PASS if answer.ok else Verdict.FAIL, str(answer))
