"""How TensorFlow's and Flax's models of transformers 4 name and lay out weights.

The rules are ``convert_tf_weight_name_to_pt_weight_name``'s (`modeling_tf_pytorch_utils.py`) and
``convert_flax_state_dict_in_pytorch_model``'s (`modeling_flax_pytorch_utils.py`) of transformers 4.57.
"""

import re
from pathlib import Path
from typing import Final

from ragengine_export.conversion.matching import Shape, StoredWeight

_LAST: Final = {
    **{"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"},
    **{"embedding": "weight", "scale": "weight"},  # Flax's
}


def stored_weight(file: Path, path: str, shape: Shape) -> StoredWeight:
    """What PyTorch calls an array, and how it lays it out.

    In TensorFlow ``a___b`` is ``b`` and ``_._`` begins a scope, the number of a layer.
    """
    name = re.sub(r"/[^/]*___([^/]*)/", r"/\1/", path.removesuffix(":0")).replace("_._", "/")
    *scopes, last = filter(None, re.split(r"[/.]", name))
    transposed = last == "kernel"
    return StoredWeight(
        file=file,
        path=path,
        name=".".join([*scopes, _LAST.get(last, last)]),
        shape=shape[::-1] if transposed else shape,
        transposed=transposed,
    )
