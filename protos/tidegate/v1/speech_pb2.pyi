from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    LINEAR16: _ClassVar[AudioEncoding]
AUDIO_ENCODING_UNSPECIFIED: AudioEncoding
LINEAR16: AudioEncoding

class StreamingRecognizeRequest(_message.Message):
    __slots__ = ("config", "audio", "voice_activity")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    VOICE_ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    config: StreamingConfig
    audio: AudioChunk
    voice_activity: VoiceActivity
    def __init__(self, config: _Optional[_Union[StreamingConfig, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., voice_activity: _Optional[_Union[VoiceActivity, _Mapping]] = ...) -> None: ...

class StreamingConfig(_message.Message):
    __slots__ = ("model", "model_version", "encoding", "sample_rate_hz", "maximum_search_results", "device_bundle", "interim_results", "interim_interval_ms", "speech_start_timeout_ms", "idle_timeout_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_SEARCH_RESULTS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    INTERIM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    INTERIM_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    SPEECH_START_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    encoding: AudioEncoding
    sample_rate_hz: int
    maximum_search_results: int
    device_bundle: str
    interim_results: bool
    interim_interval_ms: int
    speech_start_timeout_ms: int
    idle_timeout_ms: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hz: _Optional[int] = ..., maximum_search_results: _Optional[int] = ..., device_bundle: _Optional[str] = ..., interim_results: bool = ..., interim_interval_ms: _Optional[int] = ..., speech_start_timeout_ms: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("sample_offset", "content")
    SAMPLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sample_offset: int
    content: bytes
    def __init__(self, sample_offset: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class VoiceActivity(_message.Message):
    __slots__ = ("event", "segment_id", "sample_offset")
    class Event(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EVENT_UNSPECIFIED: _ClassVar[VoiceActivity.Event]
        SEGMENT_START: _ClassVar[VoiceActivity.Event]
        SEGMENT_END: _ClassVar[VoiceActivity.Event]
    EVENT_UNSPECIFIED: VoiceActivity.Event
    SEGMENT_START: VoiceActivity.Event
    SEGMENT_END: VoiceActivity.Event
    EVENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    event: VoiceActivity.Event
    segment_id: int
    sample_offset: int
    def __init__(self, event: _Optional[_Union[VoiceActivity.Event, str]] = ..., segment_id: _Optional[int] = ..., sample_offset: _Optional[int] = ...) -> None: ...

class StreamingRecognizeResponse(_message.Message):
    __slots__ = ("segment_id", "is_final", "start_s", "end_s", "transcript", "confidence", "words", "search_results", "model", "model_version", "variant", "received_bytes", "compute_ms", "label", "stability")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    is_final: bool
    start_s: float
    end_s: float
    transcript: str
    confidence: float
    words: _containers.RepeatedCompositeFieldContainer[Word]
    search_results: _containers.RepeatedCompositeFieldContainer[SearchResult]
    model: str
    model_version: str
    variant: str
    received_bytes: int
    compute_ms: float
    label: str
    stability: float
    def __init__(self, segment_id: _Optional[int] = ..., is_final: bool = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., transcript: _Optional[str] = ..., confidence: _Optional[float] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., search_results: _Optional[_Iterable[_Union[SearchResult, _Mapping]]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., variant: _Optional[str] = ..., received_bytes: _Optional[int] = ..., compute_ms: _Optional[float] = ..., label: _Optional[str] = ..., stability: _Optional[float] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "start_s", "end_s", "confidence")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    start_s: float
    end_s: float
    confidence: float
    def __init__(self, text: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class SearchResult(_message.Message):
    __slots__ = ("id", "title", "snippet", "score")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SNIPPET_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    snippet: str
    score: float
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., snippet: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("segment_id", "start_sample", "end_sample")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    START_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    END_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    start_sample: int
    end_sample: int
    def __init__(self, segment_id: _Optional[int] = ..., start_sample: _Optional[int] = ..., end_sample: _Optional[int] = ...) -> None: ...

class RecognizeRequest(_message.Message):
    __slots__ = ("config", "content", "segments")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    config: StreamingConfig
    content: bytes
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, config: _Optional[_Union[StreamingConfig, _Mapping]] = ..., content: _Optional[bytes] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class RecognizeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StreamingRecognizeResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[StreamingRecognizeResponse, _Mapping]]] = ...) -> None: ...

class BatchRecognizeRequest(_message.Message):
    __slots__ = ("config", "utterance")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    config: StreamingConfig
    utterance: Utterance
    def __init__(self, config: _Optional[_Union[StreamingConfig, _Mapping]] = ..., utterance: _Optional[_Union[Utterance, _Mapping]] = ...) -> None: ...

class Utterance(_message.Message):
    __slots__ = ("id", "content", "segments")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    content: bytes
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, id: _Optional[str] = ..., content: _Optional[bytes] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class BatchRecognizeResponse(_message.Message):
    __slots__ = ("id", "results", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    results: _containers.RepeatedCompositeFieldContainer[StreamingRecognizeResponse]
    error: Failure
    def __init__(self, id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[StreamingRecognizeResponse, _Mapping]]] = ..., error: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
