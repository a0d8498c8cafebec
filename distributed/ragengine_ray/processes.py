"""Objects that live in processes of their own, on a Ray of this machine."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

_OBJECT_STORE_BYTES = 512 << 20


@contextlib.contextmanager
def local_ray(threads: int) -> Iterator[None]:
    """Ray on this machine alone, whose processes compute with so many ``threads`` each."""
    variables = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        runtime_env={"env_vars": variables},
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class RemoteObject:
    """An object in another process, as its users hold it; they may be in other processes themselves."""

    actor: Any

    @classmethod
    def start(cls, kind: type, *arguments: Any) -> "RemoteObject":
        """Make ``kind(*arguments)`` in a process of its own, for which no CPU is reserved."""
        return cls(ray.remote(num_cpus=0)(kind).remote(*arguments))

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the object returns."""
        return ray.get(getattr(self.actor, method).remote(*arguments))

    def run(self, function: Callable[[Any], Any]) -> Any:
        """What ``function`` of the object returns in its process."""
        return ray.get(self.actor.__ray_call__.remote(function))

    def stop(self) -> None:
        """End the process."""
        ray.kill(self.actor)


def call_all(objects: Sequence[RemoteObject], method: str, *arguments: Any) -> list[Any]:
    """What the same method of each of ``objects`` returns, called at the same time."""
    return list(ray.get([getattr(one.actor, method).remote(*arguments) for one in objects]))
