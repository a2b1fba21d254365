"""ModelStreamInfer in Triton's form: many requests on one stream, one answer each, errors as answers.

Several requests of a stream run at once, up to `MOST_IN_FLIGHT`; then the stream is not read any further until its
caller has taken answers. Answers come in the order of the requests. Nothing but the end of the stream ends it: a
request that is refused, or is no message at all, is answered with `error_message`, beside it an empty response with the
request's id, as Triton fills it.

As with Triton each answer carries `triton_final_response`, by which clients know that no second one follows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.cloud.core import Caller
from tidegate.cloud.grpc_caller import ContextCaller
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.work import Work
from tidegate.errors import InputError, TidegateError
from tidegate.wire import messages
from tidegate.wire.status import text_of

MOST_IN_FLIGHT = 64
"""Of one stream: enough to fill a batch, and a bound for what a caller that never reads can make us hold."""

FINAL = "triton_final_response"

_END = None


class StreamingInference:
    """The streaming method over the unary one's steps."""

    def __init__(self, servicer: InferenceServicer, work: Work) -> None:
        self._servicer = servicer
        self._work = work

    def model_stream_infer(self, raw_requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        """Answer a stream; requests come unparsed, so that a malformed one can be answered like any other."""
        answers: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        room = threading.Semaphore(MOST_IN_FLIGHT)
        caller = ContextCaller(context)
        gone = threading.Event()

        def leave() -> None:
            gone.set()
            room.release()
            answers.put(_END)

        caller.when_over(leave)
        reader = threading.Thread(
            target=self._read,
            args=(raw_requests, caller, answers, room, gone),
            name="tidegate-infer-stream",
            daemon=True,
        )
        reader.start()
        while (answer := answers.get()) is not _END:
            yield answer.result()
            room.release()

    def _read(
        self,
        raw_requests: Iterator[bytes],
        caller: Caller,
        answers: queue.SimpleQueue[Future[Any] | None],
        room: threading.Semaphore,
        gone: threading.Event,
    ) -> None:
        """Begin every request of the stream, on a thread of its own: waiting for the next must not hold up answers."""
        import grpc

        try:
            for raw in raw_requests:
                room.acquire()
                if gone.is_set():
                    return
                answer: Future[Any] = Future()
                answers.put(answer)
                self._begin(raw, caller, answer.set_result)
        except grpc.RpcError:
            # The caller is gone; nobody reads what is left.
            return
        finally:
            answers.put(_END)

    def _begin(self, raw: bytes, caller: Caller, tell: Callable[[Any], None]) -> None:
        request = messages.ModelInferRequest()
        try:
            request.ParseFromString(raw)
            token = self._work.begin()
        except DecodeError as error:
            malformed = InputError(
                f"{len(raw)} bytes are not a valid ModelInferRequest: {error}",
                fix="encode the request with the published .proto file",
            )
            self._servicer.turned_away(caller, malformed)
            tell(_failure(request, malformed))
            return
        except TidegateError as error:
            self._servicer.turned_away(caller, error)
            tell(_failure(request, error))
            return

        def finish(response: Any, error: TidegateError | None) -> None:
            token.release()
            if error is not None:
                tell(_failure(request, error))
                return
            response.parameters[FINAL].bool_param = True
            tell(messages.ModelStreamInferResponse(infer_response=response))

        self._servicer.begin(request, caller, finish, inline=False)


def _failure(request: Any, error: TidegateError) -> Any:
    about = messages.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    about.parameters[FINAL].bool_param = True
    return messages.ModelStreamInferResponse(error_message=text_of(error), infer_response=about)
