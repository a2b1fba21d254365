from __future__ import annotations

import subprocess
import sys

from google.protobuf import descriptor_pool
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE, SPEECH


def test_the_protocol_is_not_in_the_default_pool() -> None:
    program = """
import tidegate.wire.messages
from google.protobuf import descriptor_pool
try:
    descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
except KeyError:
    print("private")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout == "private\n"


def test_field_numbers_are_those_of_the_protocol() -> None:
    numbers = {field.name: field.number for field in messages.ModelInferRequest.DESCRIPTOR.fields}
    assert numbers == {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "inputs": 5,
        "outputs": 6,
        "raw_input_contents": 7,
    }
    parameter = {field.name: field.number for field in messages.InferParameter.DESCRIPTOR.fields}
    assert parameter == {"bool_param": 1, "int64_param": 2, "string_param": 3, "double_param": 4, "uint64_param": 5}


def test_the_tables_of_methods_are_the_services_of_the_proto_files() -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in messages.descriptor_files():
        pool.AddSerializedFile(file)
    described = pool.FindServiceByName(OPEN_INFERENCE.name)
    assert [method.name for method in described.methods] == [method.name for method in OPEN_INFERENCE.methods]
    assert [method.name for method in described.methods if method.output_type.name != f"{method.name}Response"] == []

    from tidegate.v1 import speech_pb2

    speech = speech_pb2.DESCRIPTOR.services_by_name["Speech"]
    assert speech.full_name == SPEECH.name
    assert [method.name for method in speech.methods] == [method.name for method in SPEECH.methods]
