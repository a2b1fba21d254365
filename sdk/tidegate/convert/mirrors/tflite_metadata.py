"""TFLite metadata 1.5.0: the tables of metadata_schema.fbs that Tidegate fills, built and read without flatc.

ModelMetadata, SubGraphMetadata, TensorMetadata, Content with AudioProperties, AssociatedFile, CustomMetadata. The
builder is the `flatbuffers` package's; field numbers are in `_FIELDS`, in the schema's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import BundleError, DependencyError
from tidegate.runtime import flatbuffer

IDENTIFIER = b"M001"

PARSER_VERSION = "1.5.0"
"""CustomMetadata came with it."""

_FIELDS: dict[str, dict[str, int]] = {
    "model": {
        "name": 0,
        "description": 1,
        "version": 2,
        "subgraph_metadata": 3,
        "author": 4,
        "license": 5,
        "associated_files": 6,
        "min_parser_version": 7,
    },
    "subgraph": {"name": 0, "input_tensor_metadata": 2, "output_tensor_metadata": 3, "custom_metadata": 9},
    "tensor": {"name": 0, "description": 1, "content": 3, "associated_files": 6},
    "content": {"content_properties_type": 0, "content_properties": 1},
    "audio": {"sample_rate": 0, "channels": 1},
    "file": {"name": 0, "description": 1, "type": 2},
    "custom": {"name": 0, "data": 1},
}
_AUDIO_PROPERTIES = 4
_TENSOR_AXIS_LABELS = 2
_DATA_ALIGNMENT = 16


@dataclass(frozen=True)
class TensorText:
    """What is said of one input or output."""

    name: str
    description: str = ""
    sample_rate_hz: int = 0
    """above 0: it is audio of one channel at this rate"""
    labels_file: str = ""
    """name of the associated file with the labels of its last axis"""


@dataclass(frozen=True)
class ModelText:
    """What is said of a model with one graph."""

    name: str
    version: str
    description: str = ""
    licence: str = ""
    inputs: tuple[TensorText, ...] = ()
    outputs: tuple[TensorText, ...] = ()
    custom: tuple[tuple[str, bytes], ...] = ()
    """further data of the graph, by name"""


def build(model: ModelText) -> bytes:
    """Return the metadata flatbuffer; equal text gives equal bytes.

    Raises:
        DependencyError: the `flatbuffers` package is not installed.
    """
    writer = _Writer()
    subgraph = writer.table(
        "subgraph",
        input_tensor_metadata=writer.offsets([_tensor(writer, tensor) for tensor in model.inputs]),
        output_tensor_metadata=writer.offsets([_tensor(writer, tensor) for tensor in model.outputs]),
        custom_metadata=writer.offsets(
            [writer.table("custom", name=writer.text(name), data=writer.data(data)) for name, data in model.custom]
        ),
    )
    root = writer.table(
        "model",
        name=writer.text(model.name),
        description=writer.text(model.description),
        version=writer.text(model.version),
        subgraph_metadata=writer.offsets([subgraph]),
        license=writer.text(model.licence),
        min_parser_version=writer.text(PARSER_VERSION),
    )
    return writer.finished(root)


def parse(raw: bytes) -> ModelText:
    """Return what a metadata flatbuffer says, as far as `ModelText` has a place for it.

    Raises:
        BundleError: it is no whole metadata flatbuffer.
    """
    if raw[4:8] != IDENTIFIER:
        raise BundleError(
            f"TFLite metadata: bytes 4 to 8 are {raw[4:8]!r}; expected {IDENTIFIER!r}", fix="rebuild the bundle"
        )
    try:
        return _model(raw, flatbuffer.unsigned(raw, 0))
    except flatbuffer.DAMAGED as error:
        raise BundleError(f"TFLite metadata: it is no whole flatbuffer: {error}", fix="rebuild the bundle") from error


def _tensor(writer: _Writer, tensor: TensorText) -> int:
    content = files = None
    if tensor.sample_rate_hz:
        audio = writer.table("audio", sample_rate=writer.uint32(tensor.sample_rate_hz), channels=writer.uint32(1))
        content = writer.table(
            "content", content_properties_type=writer.byte(_AUDIO_PROPERTIES), content_properties=writer.offset(audio)
        )
    if tensor.labels_file:
        file = writer.table(
            "file",
            name=writer.text(tensor.labels_file),
            description=writer.text("labels of the last axis, one a line"),
            type=writer.byte(_TENSOR_AXIS_LABELS),
        )
        files = writer.offsets([file])
    return writer.table(
        "tensor",
        name=writer.text(tensor.name),
        description=writer.text(tensor.description),
        content=writer.offset(content),
        associated_files=files,
    )


def _model(raw: bytes, model: int) -> ModelText:
    fields = _FIELDS["model"]
    graphs = flatbuffer.tables(raw, model, fields["subgraph_metadata"])
    graph = graphs[0] if graphs else None
    of_graph = _FIELDS["subgraph"]

    def tensors(side: str) -> tuple[TensorText, ...]:
        places = [] if graph is None else flatbuffer.tables(raw, graph, of_graph[f"{side}_tensor_metadata"])
        return tuple(_tensor_text(raw, place) for place in places)

    custom = [] if graph is None else flatbuffer.tables(raw, graph, of_graph["custom_metadata"])
    return ModelText(
        name=flatbuffer.text(raw, model, fields["name"]),
        version=flatbuffer.text(raw, model, fields["version"]),
        description=flatbuffer.text(raw, model, fields["description"]),
        licence=flatbuffer.text(raw, model, fields["license"]),
        inputs=tensors("input"),
        outputs=tensors("output"),
        custom=tuple((flatbuffer.text(raw, item, 0), flatbuffer.data(raw, item, 1)) for item in custom),
    )


def _tensor_text(raw: bytes, tensor: int) -> TensorText:
    fields = _FIELDS["tensor"]
    rate = 0
    content = flatbuffer.target(raw, tensor, fields["content"])
    if content is not None and flatbuffer.number(raw, content, 0, "<B") == _AUDIO_PROPERTIES:
        audio = flatbuffer.target(raw, content, 1)
        rate = 0 if audio is None else flatbuffer.number(raw, audio, 0)
    files = flatbuffer.tables(raw, tensor, fields["associated_files"])
    labels = [file for file in files if flatbuffer.number(raw, file, 2, "<B") == _TENSOR_AXIS_LABELS]
    return TensorText(
        name=flatbuffer.text(raw, tensor, fields["name"]),
        description=flatbuffer.text(raw, tensor, fields["description"]),
        sample_rate_hz=rate,
        labels_file=flatbuffer.text(raw, labels[0], 0) if labels else "",
    )


Slot = Callable[[int], None]
"""Writes one field into the table under construction, given its number."""


class _Writer:
    """The `flatbuffers` builder with fields by name. Absent fields are None."""

    def __init__(self) -> None:
        try:
            import flatbuffers
        except ImportError as error:
            raise DependencyError(
                "TFLite metadata needs the package flatbuffers", fix='pip install "tidegate[build]"'
            ) from error
        self._builder: Any = flatbuffers.Builder(1024)

    def text(self, value: str) -> Slot | None:
        """A string; an empty one is left out."""
        return self.offset(self._builder.CreateString(value)) if value else None

    def data(self, value: bytes) -> Slot | None:
        """A vector of bytes, aligned as the schema asks of custom data."""
        builder = self._builder
        builder.StartVector(1, len(value), _DATA_ALIGNMENT)
        builder.head = builder.Head() - len(value)
        builder.Bytes[builder.Head() : builder.Head() + len(value)] = value
        return self.offset(builder.EndVector())

    def offsets(self, places: Sequence[int]) -> Slot | None:
        """A vector of tables; an empty one is left out."""
        if not places:
            return None
        self._builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self._builder.PrependUOffsetTRelative(place)
        return self.offset(self._builder.EndVector())

    def offset(self, place: int | None) -> Slot | None:
        """A reference to what was written before."""
        if place is None:
            return None
        return lambda number: self._builder.PrependUOffsetTRelativeSlot(number, place, 0)

    def uint32(self, value: int) -> Slot:
        """An unsigned number."""
        return lambda number: self._builder.PrependUint32Slot(number, value, 0)

    def byte(self, value: int) -> Slot:
        """A small number, for kinds."""
        return lambda number: self._builder.PrependUint8Slot(number, value, 0)

    def table(self, kind: str, **fields: Slot | None) -> int:
        """Write a table, and return its place."""
        numbers = _FIELDS[kind]
        self._builder.StartObject(max(numbers.values()) + 1)
        for name, write in fields.items():
            if write is not None:
                write(numbers[name])
        place: int = self._builder.EndObject()
        return place

    def finished(self, root: int) -> bytes:
        """Return the whole flatbuffer."""
        self._builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self._builder.Output())
