"""The schema of ``.onnx`` files: onnx.proto of ONNX 1.23, with its names.

What is marked as ignored can hold no tensor, and so no name of a file.
"""

from ragengine.bundle.protobuf import BYTES, FIXED32, FIXED64, INT, Field, Schema


def _fields(**numbers: tuple[int, int | str] | tuple[int, int | str, str]) -> dict[int, Field]:
    """Fields by number, from ``name=(number, wire type or message[, "many" or "ignored" or both])``."""
    return {
        number: Field(
            name,
            wire=BYTES if isinstance(kind, str) else kind,
            message=kind if isinstance(kind, str) else None,
            many="many" in "".join(how),
            ignored="ignored" in "".join(how),
        )
        for name, (number, kind, *how) in numbers.items()
    }


_MANY, _IGNORED, _IGNORED_MANY = "many", "ignored", "ignored many"

SCHEMA: Schema = {
    "Model": _fields(
        ir_version=(1, INT),
        producer_name=(2, BYTES, _IGNORED),
        producer_version=(3, BYTES, _IGNORED),
        domain=(4, BYTES, _IGNORED),
        model_version=(5, INT),
        doc_string=(6, BYTES, _IGNORED),
        graph=(7, "Graph"),
        opset_import=(8, "OperatorSetId", _MANY),
        metadata_props=(14, BYTES, _IGNORED_MANY),
        training_info=(20, BYTES, _MANY),  # a model that has one, or a function, is refused
        functions=(25, BYTES, _MANY),
        configuration=(26, BYTES, _IGNORED_MANY),
    ),
    "OperatorSetId": _fields(domain=(1, BYTES), version=(2, INT)),
    "Graph": _fields(
        node=(1, "Node", _MANY),
        name=(2, BYTES, _IGNORED),
        initializer=(5, "Tensor", _MANY),
        doc_string=(10, BYTES, _IGNORED),
        input=(11, "ValueInfo", _MANY),
        output=(12, "ValueInfo", _MANY),
        value_info=(13, BYTES, _IGNORED_MANY),
        quantization_annotation=(14, BYTES, _IGNORED_MANY),
        sparse_initializer=(15, "SparseTensor", _MANY),
        metadata_props=(16, BYTES, _IGNORED_MANY),
    ),
    "Node": _fields(
        input=(1, BYTES, _MANY),
        output=(2, BYTES, _IGNORED_MANY),
        name=(3, BYTES, _IGNORED),
        op_type=(4, BYTES, _IGNORED),
        attribute=(5, "Attribute", _MANY),
        doc_string=(6, BYTES, _IGNORED),
        domain=(7, BYTES),
        overload=(8, BYTES, _IGNORED),
        metadata_props=(9, BYTES, _IGNORED_MANY),
        device_configurations=(10, BYTES, _IGNORED_MANY),
    ),
    "Attribute": _fields(
        name=(1, BYTES, _IGNORED),
        f=(2, FIXED32, _IGNORED),
        i=(3, INT),
        s=(4, BYTES, _IGNORED),
        t=(5, "Tensor"),
        g=(6, "Graph"),
        floats=(7, FIXED32, _IGNORED_MANY),
        ints=(8, INT, _MANY),
        strings=(9, BYTES, _IGNORED_MANY),
        tensors=(10, "Tensor", _MANY),
        graphs=(11, "Graph", _MANY),
        doc_string=(13, BYTES, _IGNORED),
        tp=(14, BYTES, _IGNORED),
        type_protos=(15, BYTES, _IGNORED_MANY),
        type=(20, INT),
        ref_attr_name=(21, BYTES, _IGNORED),
        sparse_tensor=(22, "SparseTensor"),
        sparse_tensors=(23, "SparseTensor", _MANY),
    ),
    "Tensor": _fields(
        dims=(1, INT, _MANY),
        data_type=(2, INT),
        segment=(3, BYTES),
        float_data=(4, FIXED32, _IGNORED_MANY),
        int32_data=(5, INT, _IGNORED_MANY),
        string_data=(6, BYTES, _IGNORED_MANY),
        int64_data=(7, INT, _IGNORED_MANY),
        name=(8, BYTES),
        raw_data=(9, BYTES),
        double_data=(10, FIXED64, _IGNORED_MANY),
        uint64_data=(11, INT, _IGNORED_MANY),
        doc_string=(12, BYTES, _IGNORED),
        external_data=(13, "StringStringEntry", _MANY),
        data_location=(14, INT),
        metadata_props=(16, BYTES, _IGNORED_MANY),
    ),
    "SparseTensor": _fields(values=(1, "Tensor"), indices=(2, "Tensor"), dims=(3, INT, _IGNORED_MANY)),
    "StringStringEntry": _fields(key=(1, BYTES), value=(2, BYTES)),
    "ValueInfo": _fields(
        name=(1, BYTES),
        type=(2, "Type"),
        doc_string=(3, BYTES, _IGNORED),
        metadata_props=(4, BYTES, _IGNORED_MANY),
    ),
    "Type": _fields(
        tensor_type=(1, "Type.Tensor"),
        sequence_type=(4, BYTES, _IGNORED),
        map_type=(5, BYTES, _IGNORED),
        denotation=(6, BYTES, _IGNORED),
        opaque_type=(7, BYTES, _IGNORED),
        sparse_tensor_type=(8, BYTES, _IGNORED),
        optional_type=(9, BYTES, _IGNORED),
    ),
    "Type.Tensor": _fields(elem_type=(1, INT), shape=(2, "TensorShape")),
    "TensorShape": _fields(dim=(1, "TensorShape.Dimension", _MANY)),
    "TensorShape.Dimension": _fields(
        dim_value=(1, INT), dim_param=(2, BYTES), denotation=(3, BYTES, _IGNORED)
    ),
}
