"""The mirror in a TFLite model: TFLite metadata 1.5.0, as the tools of TensorFlow Lite and MediaPipe look for it.

`TFLITE_METADATA` holds name, version, licence, names and descriptions of tensors, the sample rate, and all facts as
JSON in the graph's custom metadata `tidegate`. The labels are `labels.txt` in a ZIP archive behind the model.
"""

from __future__ import annotations

from tidegate.bundle.manifest import TensorSpec
from tidegate.convert.mirrors import tflite_file
from tidegate.convert.mirrors.facts import Facts, from_json, to_json
from tidegate.convert.mirrors.tflite_metadata import ModelText, TensorText, build, parse

METADATA = "TFLITE_METADATA"

CUSTOM = "tidegate"

LABELS_FILE = "labels.txt"


def obstacle(content: bytes) -> str:
    """Return why this model keeps its own metadata, "" when `write` may give it ours.

    Raises:
        BundleError: the file is damaged.
    """
    plain = tflite_file.original(content)
    if METADATA in tflite_file.metadata(plain):
        return "it carries TFLite metadata of its own"
    return tflite_file.obstacle(plain)


def write(content: bytes, facts: Facts) -> bytes:
    """Return the model with these facts in place of those that an earlier build wrote.

    Args:
        content: a TFLite model for which `obstacle` is "".
        facts: what to say.

    Raises:
        BundleError: the file is damaged.
        DependencyError: the `flatbuffers` package is not installed.
    """
    plain = tflite_file.original(content)
    tensors = tflite_file.main_tensors(plain)
    files = {LABELS_FILE: _labels(facts.labels)} if facts.labels else {}
    text = ModelText(
        name=facts.name,
        version=facts.version,
        description=facts.description,
        licence=facts.licence,
        inputs=_tensors(tensors.inputs, facts.signature.inputs, facts, is_input=True),
        outputs=_tensors(tensors.outputs, facts.signature.outputs, facts, is_input=False),
        custom=((CUSTOM, to_json(facts)),),
    )
    return tflite_file.with_files(tflite_file.with_metadata(plain, {METADATA: build(text)}), files)


def without(content: bytes) -> bytes:
    """Return the model as it was before `write`.

    Raises:
        BundleError: the file is damaged.
    """
    return tflite_file.original(content)


def read(content: bytes, *, origin: str = "TFLite model") -> Facts | None:
    """Return the facts that `write` put into a model, None when there are none.

    Raises:
        BundleError: the file or its metadata is damaged.
    """
    raw = tflite_file.metadata(content).get(METADATA)
    if raw is None:
        return None
    facts = dict(parse(raw).custom).get(CUSTOM)
    return None if facts is None else from_json(facts, origin=origin)


def _tensors(
    names: tuple[str, ...], specs: tuple[TensorSpec, ...], facts: Facts, *, is_input: bool
) -> tuple[TensorText, ...]:
    """Return one text for each of the file's tensors, in the file's order, under the bundle's names."""
    bundle_names = {own: name for name, own in facts.tensor_names.items()}
    by_name = {spec.name: spec for spec in specs}
    texts = []
    for own in names:
        spec = by_name.get(bundle_names.get(own, own))
        if spec is None:  # the signature check of the build has its own words for this
            texts.append(TensorText(name=own))
            continue
        first = spec is specs[0]
        audio = facts.front_end is not None and facts.front_end.kind == "audio" and is_input and first
        texts.append(
            TensorText(
                name=spec.name,
                description=f"{spec.dtype} {list(spec.shape)}",
                sample_rate_hz=facts.front_end.sample_rate_hz if audio and facts.front_end else 0,
                labels_file=LABELS_FILE if facts.labels and not is_input and first else "",
            )
        )
    return tuple(texts)


def _labels(labels: tuple[str, ...]) -> bytes:
    """Return one label a line; a label of several lines becomes one, and stands whole in the facts."""
    return "".join(f"{' '.join(label.splitlines())}\n" for label in labels).encode()
