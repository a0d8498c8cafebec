"""What the device does at best, measured with torch in the run that is compared with it.

The bandwidth of copying and of only reading, and the rate of matrix products of each precision.
"""

import json
from collections.abc import Sequence

import torch

from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.harness.process import Engine
from ragengine_bench.roofline.machine_rates import best
from ragengine_bench.roofline.roofline import Rates

_BYTES = {"full": 1 << 30, "toy": 1 << 22}  # far larger than a cache
_PRODUCT = {"full": 4096, "toy": 256}  # rows and columns of both factors
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class DeviceRates:
    """Measures in a process of its own, as every engine does."""

    def __init__(self, device: str, size: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device, self._size = device, size

    def bandwidth(self) -> dict[str, float]:
        """Bytes a second when copying (reads and writes counted) and when only reading (a sum)."""
        source = torch.ones(_BYTES[self._size] // 4, dtype=torch.float32, device=self._device)
        target = torch.empty_like(source)
        copied = best(lambda: self._wait(target.copy_(source)))
        read = best(lambda: self._wait(source.sum()))
        return {"copy": 2 * _BYTES[self._size] / copied, "read": _BYTES[self._size] / read}

    def gemm(self, precision: str) -> float:
        """Operations (two for a multiplication and an addition) a second of a square product; no TF32."""
        wide = _PRODUCT[self._size]
        factor = torch.randn(wide, wide, device=self._device).to(_DTYPES[precision])
        product = torch.empty_like(factor)
        return 2 * wide**3 / best(lambda: self._wait(torch.mm(factor, factor, out=product)))

    def _wait(self, result: torch.Tensor) -> None:
        """Until ``result`` is there: CUDA computes while the host goes on."""
        if result.is_cuda:
            torch.cuda.synchronize()


def measured_rates(plan: GpuPlan, precisions: Sequence[str]) -> Rates:
    """The rates of ``plan.device`` for products in ``precisions``; the bandwidth is the better of both.

    Each is measured once and kept in the work folder, for the steps that follow.
    """
    path = plan.work / f"{plan.size}-rates.json"
    rates: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in ("bandwidth", *precisions) if name not in rates]
    if missing:
        settings = {"device": plan.device, "size": plan.size, "threads": plan.threads}
        with Engine(f"{__name__}:DeviceRates", settings, threads=plan.threads, limit=120) as engine:
            for name in missing:
                if name == "bandwidth":
                    rates[name] = max(engine.call("bandwidth").result.values())
                else:
                    rates[name] = engine.call("gemm", precision=name).result
        path.write_text(json.dumps(rates))
    return Rates({name: rates[name] for name in precisions}, rates["bandwidth"])
