"""The schema by which ``.onnx`` files are read is that of the onnx package."""

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from onnx import ModelProto

from ragengine.bundle import protobuf
from ragengine.bundle.onnx_schema import SCHEMA


def test_the_schema_is_that_of_onnx() -> None:
    """Field by field.  A message that is not descended into can hold no tensor, graph or node."""
    unread = {"training_info", "functions"}  # refused whole
    seen: set[str] = set()

    def compare(name: str, theirs: Descriptor) -> None:
        if name in seen:
            return
        seen.add(name)
        ours = SCHEMA[name]
        assert {number: field.name for number, field in ours.items()} == {
            field.number: field.name for field in theirs.fields
        }
        for field in theirs.fields:
            mine = ours[field.number]
            assert mine.wire == wire_type(field), field.full_name
            assert mine.many == field.is_repeated, field.full_name
            if mine.message is not None:
                compare(mine.message, field.message_type)
            elif field.message_type is not None and field.name not in unread:
                assert not {"TensorProto", "GraphProto", "NodeProto"} & reachable(field.message_type, set())

    compare("Model", ModelProto.DESCRIPTOR)
    assert seen == set(SCHEMA)


def wire_type(field: FieldDescriptor) -> int:
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return protobuf.FIXED32 if field.type == FieldDescriptor.TYPE_FLOAT else protobuf.FIXED64
    texts = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    return protobuf.BYTES if field.type in texts else protobuf.INT


def reachable(message: Descriptor, seen: set[str]) -> set[str]:
    if message.name not in seen:
        seen.add(message.name)
        for field in message.fields:
            if field.message_type is not None:
                reachable(field.message_type, seen)
    return seen
