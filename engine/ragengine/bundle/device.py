"""Where the graphs of a bundle run."""

import logging

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import STEP_PRECISIONS
from ragengine.errors import DeviceError
from ragengine.runtime.devices import Device, ResolvedDevice, resolve_device

log = logging.getLogger("ragengine")


def graph_device(bundle: Bundle, device: Device) -> ResolvedDevice:
    """The device that the graphs of ``bundle`` run on; as :func:`resolve_device`, and the bundle has a say.

    int8 and int4 graphs have operators that only a CPU has.  onnxruntime would run those nodes on the CPU
    without a word; here ``cuda`` is refused and ``auto`` takes the CPU for the whole graph, with a log entry.
    """
    resolved, precision = resolve_device(device), bundle.manifest.precision
    if resolved == "cpu" or precision in STEP_PRECISIONS:
        return resolved
    reason = f"the graphs of {bundle.path} are {precision}, which only a CPU computes"
    if device == "cuda":
        raise DeviceError(f"device is cuda, but {reason}; export it with --precision fp16, or use cpu.")
    log.info("device auto is cpu: %s.", reason)
    return "cpu"
