from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListLabelsRequest(_message.Message):
    __slots__ = ("model_name",)
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    def __init__(self, model_name: _Optional[str] = ...) -> None: ...

class ListLabelsResponse(_message.Message):
    __slots__ = ("labels", "versions", "history")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    versions: _containers.RepeatedScalarFieldContainer[str]
    history: _containers.RepeatedCompositeFieldContainer[LabelMove]
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ..., versions: _Optional[_Iterable[str]] = ..., history: _Optional[_Iterable[_Union[LabelMove, _Mapping]]] = ...) -> None: ...

class SetLabelRequest(_message.Message):
    __slots__ = ("model_name", "label", "version")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    version: str
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class LabelRequest(_message.Message):
    __slots__ = ("model_name", "label")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class LabelMove(_message.Message):
    __slots__ = ("model_name", "label", "version", "before", "time_s")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    version: str
    before: str
    time_s: float
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ..., version: _Optional[str] = ..., before: _Optional[str] = ..., time_s: _Optional[float] = ...) -> None: ...
