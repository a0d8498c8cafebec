"""Requests that come at a rate, whether or not those before them are answered."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np

PATIENCE = 120.0  # seconds after which a client gives up


@dataclass
class Outcome:
    """What became of the requests at one rate.

    rate      requests a second that came
    seconds   from the first to the last arrival
    latencies seconds of each request that was answered
    statuses  how many requests ended with each HTTP status; 0 for those without one
    lasted    seconds until the last was answered
    """

    rate: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lasted: float = 0.0

    @property
    def answered(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.lasted if self.lasted else 0.0

    @property
    def saturated(self) -> bool:
        """Whether the server fell behind: it needed a tenth longer than the requests took to come."""
        return self.lasted > 1.1 * self.seconds + 2

    @property
    def errors(self) -> int:
        """Requests that ended neither with an answer nor with 429."""
        return sum(count for status, count in self.statuses.items() if status not in (200, 429))

    def percentile(self, percent: float) -> float:
        """Of the latencies, in seconds."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


async def send_at_rate(
    url: str, questions: Sequence[str], settings: dict[str, Any], rate: float, seconds: float, seed: int = 0
) -> Outcome:
    """Send questions in turn as a Poisson process of ``rate`` a second, and wait for all of them."""
    outcome, rng, tasks = Outcome(rate, seconds), random.Random(seed), []
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    headers = {"Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE, headers=headers) as client:
        bodies = itertools.cycle([json.dumps({"question": q, **settings}).encode() for q in questions])
        begun = time.perf_counter()
        arrival = begun
        while (arrival := arrival + rng.expovariate(rate)) < begun + seconds:
            await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
            tasks.append(asyncio.create_task(_send(client, next(bodies), arrival, outcome)))
        await asyncio.gather(*tasks)
        outcome.lasted = max(time.perf_counter() - begun, seconds)
    return outcome


async def _send(client: httpx2.AsyncClient, body: bytes, arrival: float, outcome: Outcome) -> None:
    """One request; it counts from when it should have been sent, so that a late client hides nothing."""
    try:
        response = await client.post("/v1/answer", content=body)
    except httpx2.HTTPError:
        outcome.statuses[0] += 1
        return
    outcome.statuses[response.status_code] += 1
    if response.status_code == 200:
        outcome.latencies.append(time.perf_counter() - arrival)
