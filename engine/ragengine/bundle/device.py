"""Where the graphs of a bundle run."""

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import STEP_PRECISIONS
from ragengine.errors import DeviceError
from ragengine.messages import log
from ragengine.runtime.devices import Device, ResolvedDevice, resolve_device


def graph_device(bundle: Bundle, device: Device) -> ResolvedDevice:
    """The device on which the graphs of ``bundle`` run: as :func:`resolve_device`, if their precision allows.

    int8 and int4 graphs have operators that only the CPU implements.  onnxruntime would silently run those
    nodes there; instead ``cuda`` is refused, and ``auto`` takes the CPU for all nodes and logs the reason.

    Raises:
        DeviceError: ``device`` is cuda and the graphs cannot run there.
    """
    resolved, precision = resolve_device(device), bundle.manifest.precision
    if resolved == "cpu" or precision in STEP_PRECISIONS:
        return resolved
    reason = f"the graphs of {bundle.path} are {precision}, which only a CPU computes"
    if device == "cuda":
        raise DeviceError(f"device is cuda, but {reason}; export it with --precision fp16, or use cpu.")
    log.info("device auto is cpu: %s.", reason)
    return "cpu"
