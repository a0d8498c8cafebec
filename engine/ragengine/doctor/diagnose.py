"""The diagnosis: section after section, each as far as the earlier ones found what it needs to work."""

import sys
from functools import partial
from pathlib import Path

from ragengine.doctor import machine, model, packages
from ragengine.doctor.findings import Diagnosis
from ragengine.runtime.devices import Device


def diagnose(
    bundle: str | Path | None = None,
    index: str | Path | None = None,
    *,
    device: Device = "auto",
    search_device: Device | None = None,
    threads: int | None = None,
) -> Diagnosis:
    """Find out whether questions can be answered here, as ``ragengine doctor`` does.

    It never raises: errors are among the findings.

    Args:
        bundle: a bundle to examine.
        index: an index to examine; with ``bundle``, a question is answered.
        device: where graphs are to run.
        search_device: where the index is to be searched, by default on ``device``.
        threads: threads of a graph, by default all cores.

    Returns:
        What was found, in sections; ``reasons`` says why no question can be answered, and is empty where one
        can be.
    """
    diagnosis = Diagnosis(device)
    searching = search_device or device
    settings = {"device": device, "search_device": searching, "threads": threads}
    examine = diagnosis.examine
    examine("software", machine.software)
    examine("processor", machine.processor)
    examine("memory", machine.memory)
    examine("cuda", machine.cuda)
    examine("onnxruntime", partial(packages.onnxruntime, device))
    examine("faiss", partial(packages.faiss, searching))
    examine("tokenizers", packages.tokenizers)
    if bundle is not None and "onnxruntime" in sys.modules:
        examine("bundle", partial(model.bundle, bundle, device))
    if index is not None and "faiss" in sys.modules:
        examine("index", partial(model.index, index, bundle, searching))
    if bundle is not None and index is not None and not diagnosis.reasons:
        examine("answer", partial(model.answer, bundle, index, settings))
    examine("cuda in this process", machine.loaded_cuda)
    return diagnosis
