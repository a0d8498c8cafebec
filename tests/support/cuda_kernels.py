"""The kernels of onnxruntime's CUDA provider that a decoder step may use.

From onnxruntime's generated table, docs/OperatorKernels.md, section CUDAExecutionProvider, and for the Gelu
of opset 20, which it does not list yet, onnxruntime/core/providers/cuda/tensor/gelu.cc.  A signature is
``inputs -> outputs``; ``host`` are the inputs that the kernel reads in the host's memory
(``OrtMemTypeCPUInput`` in its registration), so what feeds them must be there.  GatherND and Concat have
kernels too, but those copy numbers from the host in every run (gather_nd.cc, concat.cc), which a captured
graph must not hold: its replay would read freed memory.
"""

from dataclasses import dataclass

FLOATS = frozenset({"float", "float16"})
NUMBERS = FLOATS | {"double", "int32", "int64"}
ALL = NUMBERS | {"bool", "int8", "uint8"}
INDICES = frozenset({"int32", "int64"})
INT64, INT32, BOOL = (frozenset({name}) for name in ("int64", "int32", "bool"))


@dataclass(frozen=True)
class Kernel:
    """``inputs`` and ``outputs`` name type variables; ``types`` says what each may be."""

    inputs: str
    outputs: str
    types: dict[str, frozenset[str]]
    host: tuple[int, ...] = ()
    variadic: bool = False


def _same(types: frozenset[str], inputs: int, **more: bool) -> Kernel:
    return Kernel(" ".join("T" * inputs), "T", {"T": types}, variadic=more.get("variadic", False))


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "Add"): _same(NUMBERS, 2),
    ("", "Sub"): _same(NUMBERS, 2),
    ("", "Mul"): _same(NUMBERS, 2),
    ("", "Div"): _same(NUMBERS, 2),
    ("", "Mod"): _same(NUMBERS, 2),
    ("", "Exp"): _same(FLOATS, 1),
    ("", "Log"): _same(FLOATS, 1),
    ("", "Sigmoid"): _same(FLOATS, 1),
    ("", "Relu"): _same(FLOATS, 1),
    ("", "Tanh"): _same(FLOATS, 1),
    ("", "Gelu"): _same(FLOATS, 1),
    ("", "MatMul"): _same(FLOATS, 2),
    ("", "LogSoftmax"): _same(FLOATS, 1),
    ("", "LayerNormalization"): _same(FLOATS, 3),
    ("", "Max"): _same(NUMBERS, 1, variadic=True),
    ("", "Min"): _same(NUMBERS, 1, variadic=True),
    ("", "CumSum"): Kernel("T S", "T", {"T": FLOATS | {"int32", "int64"}, "S": INDICES}, host=(1,)),
    # its number of inputs is fixed, but its second output (of which nothing is asked) is float32
    ("", "SimplifiedLayerNormalization"): Kernel("T V", "V", {"T": FLOATS, "V": FLOATS}),
    ("", "Transpose"): _same(ALL, 1),
    ("", "Clip"): Kernel("T T T", "T", {"T": FLOATS | {"int64"}}, host=(1, 2)),
    ("", "Cast"): Kernel("T", "", {"T": ALL}),
    ("", "Where"): Kernel("B T T", "T", {"B": BOOL, "T": FLOATS | {"int32", "int64", "uint8"}}),
    ("", "Gather"): Kernel("T I", "T", {"T": ALL, "I": INDICES}),
    ("", "GatherElements"): Kernel("T I", "T", {"T": ALL, "I": INDICES}),
    ("", "ScatterElements"): Kernel("T I T", "T", {"T": ALL, "I": INDICES}),
    ("", "Reshape"): Kernel("T S", "T", {"T": ALL, "S": INT64}, host=(1,)),
    ("", "Expand"): Kernel("T S", "T", {"T": ALL, "S": INT64}, host=(1,)),
    ("", "Unsqueeze"): Kernel("T S", "T", {"T": ALL, "S": INT64}, host=(1,)),
    ("", "Split"): Kernel("T S", "T T T", {"T": ALL, "S": INT64}, host=(1,)),
    ("", "Pad"): Kernel("T S T", "T", {"T": FLOATS | {"double", "bool"}, "S": INT64}, host=(1, 2)),
    ("", "TopK"): Kernel("T S", "T I", {"T": NUMBERS, "S": INT64, "I": INT64}, host=(1,)),
    ("com.microsoft", "FusedMatMul"): _same(FLOATS, 2),
    ("com.microsoft", "SkipLayerNormalization"): Kernel("T T T T T", "T", {"T": FLOATS}),
    # query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value
    ("com.microsoft", "MultiHeadAttention"): Kernel("T T T T M T T T", "T T T", {"T": FLOATS, "M": INT32}),
}
