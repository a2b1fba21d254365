"""Speech calls and their segments, by model and version. Asked by the speech service, once for each call."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

from tidegate.cloud.metrics.exposition import Family
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_observers import Ending
from tidegate.cloud.speech_segment import SAMPLE_BYTES, OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.cloud.speech_stages import Stages
from tidegate.cloud.statistics import BOUNDS_NS

FINAL_BOUNDS_S = tuple(bound / 1e9 for bound in BOUNDS_NS)

FACTOR_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Of work per audio; over 1 the server cannot follow."""

WORDS, NO_WORDS, UNANSWERED = "words", "no_words", "unanswered"
"""What came of a segment."""

RESULTS = (WORDS, NO_WORDS, UNANSWERED)

Version = tuple[str, str]
"""Model and version."""


class Histogram:
    """One series; whoever adds holds the lock of `SpeechCounts`."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.bins = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.bins[bisect_left(self.bounds, value)] += 1
        self.total += value


class SpeechCounts:
    """Counts calls and segments; callers cannot make series, since names come from what was served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str, str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._segments: Counter[tuple[str, str, str]] = Counter()
        self._interim: Counter[Version] = Counter()
        self._audio_s: defaultdict[Version, float] = defaultdict(float)
        self._stage_ns: Counter[tuple[str, str, str]] = Counter()
        self._final: dict[Version, Histogram] = {}
        self._factor: dict[Version, Histogram] = {}

    def opened(self, method: str) -> CountedCall:
        """Count a call that is open until it is told that it ended."""
        with self._lock:
            self._open[method] += 1
        return CountedCall(self, method)

    def accepted(self, version: Version) -> None:
        """Show a version's series from the first call on, with 0: a rate needs the number before the first event."""
        with self._lock:
            for result in RESULTS:
                self._segments[(*version, result)] += 0
            self._interim[version] += 0
            self._audio_s[version] += 0.0

    def ended(self, method: str, version: Version | None, code: str) -> None:
        """Count the end of a call; one without a version was refused."""
        with self._lock:
            self._open[method] -= 1
            if version is None:
                self._refused[method, code] += 1
            else:
                self._ended[(method, *version, code)] += 1

    def interim(self, version: Version) -> None:
        """Count an interim result."""
        with self._lock:
            self._interim[version] += 1

    def segment(self, version: Version, result: str, audio_s: float, stages: Stages) -> None:
        """Count a segment; times and factor only of one that was answered."""
        with self._lock:
            self._segments[(*version, result)] += 1
            self._audio_s[version] += audio_s
            for stage, spent_ns in stages.spent_ns.items():
                self._stage_ns[(*version, stage)] += spent_ns
            if not stages.answered_ns:
                return
            final = self._final.setdefault(version, Histogram(FINAL_BOUNDS_S))
            final.add((stages.answered_ns - stages.ended_ns) / 1e9)
            self._factor.setdefault(version, Histogram(FACTOR_BOUNDS)).add(stages.working_ns / 1e9 / audio_s)

    def families(self) -> list[Family]:
        """Return everything as it stands now."""
        calls_open = Family("tidegate_speech_calls_open", "gauge", "Speech calls that are open.", [])
        ended = Family("tidegate_speech_calls_total", "counter", "Speech calls that were accepted and have ended.", [])
        refused = Family("tidegate_speech_refused_total", "counter", "Speech calls that were not accepted.", [])
        segments = Family("tidegate_speech_segments_total", "counter", "Speech segments, by what came of them.", [])
        interim = Family("tidegate_speech_interim_total", "counter", "Interim results that were sent.", [])
        audio = Family("tidegate_speech_audio_seconds_total", "counter", "Audio of segments that have ended.", [])
        stage = Family("tidegate_speech_stage_seconds_total", "counter", "Time of segments in each stage.", [])
        final = Family(
            "tidegate_speech_final_seconds", "histogram", "From the end of a segment to its final result.", []
        )
        factor = Family(
            "tidegate_speech_real_time_factor", "histogram", "Work on a segment by the length of its audio.", []
        )
        with self._lock:
            for method, count in sorted(self._open.items()):
                calls_open.add(count, method=method)
            for (method, model, version, code), count in sorted(self._ended.items()):
                ended.add(count, method=method, model=model, version=version, code=code)
            for (method, code), count in sorted(self._refused.items()):
                refused.add(count, method=method, code=code)
            for (model, version, result), count in sorted(self._segments.items()):
                segments.add(count, model=model, version=version, result=result)
            for (model, version), count in sorted(self._interim.items()):
                interim.add(count, model=model, version=version)
            for (model, version), seconds in sorted(self._audio_s.items()):
                audio.add(seconds, model=model, version=version)
            for (model, version, name), spent_ns in sorted(self._stage_ns.items()):
                stage.add(spent_ns / 1e9, model=model, version=version, stage=name)
            for family, by_version in ((final, self._final), (factor, self._factor)):
                for (model, version), one in sorted(by_version.items()):
                    family.add_histogram(one.bounds, one.bins, one.total, {"model": model, "version": version})
        return [calls_open, ended, refused, segments, interim, audio, stage, final, factor]


class CountedCall:
    """One call. A `CallObserver`."""

    def __init__(self, counts: SpeechCounts, method: str) -> None:
        self._counts = counts
        self._method = method
        self._version: Version | None = None
        self._rate_hz = 0

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        """Note the version."""
        self._version = (served.name, served.version)
        self._counts.accepted(self._version)
        self._rate_hz = settings.sample_rate_hz

    def interim_answered(self, answer: SegmentAnswer) -> None:
        """Count it."""
        self._counts.interim((answer.served.name, answer.served.version))

    def segment_answered(self, answer: SegmentAnswer) -> None:
        """Count it under the version that answered."""
        version = (answer.served.name, answer.served.version)
        result = WORDS if answer.transcript.text else NO_WORDS
        audio_s = answer.received_bytes / SAMPLE_BYTES / self._rate_hz
        self._counts.segment(version, result, audio_s, answer.stages)

    def segment_left(self, segment: OpenSegment) -> None:
        """Count it."""
        if self._version is not None:
            self._counts.segment(self._version, UNANSWERED, segment.samples / self._rate_hz, segment.stages)

    def ended(self, ending: Ending) -> None:
        """Count the call."""
        self._counts.ended(self._method, self._version, ending.code)
