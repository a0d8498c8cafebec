"""The order of the examples, drawn ahead with the seed, so that a resumed run sees the same ones."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ragengine.errors import OptionsError

_POOL = 25


def draw(
    groups: Sequence[str], total: int, seed: int, shares: Mapping[str, float] | None = None
) -> list[int]:
    """``total`` indices into ``groups``: every example once before one comes again.

    With ``shares``, each draw first chooses a group with that probability; examples of groups that are not
    named are left out.  Raises :class:`OptionsError` where a named group has no examples.
    """
    check_groups(groups, shares or {})
    rng = random.Random(f"draw {seed}")
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group if shares else ""].append(index)
    names = sorted(shares) if shares else [""]
    weights = [shares[name] for name in names] if shares else None
    queues: dict[str, list[int]] = {name: [] for name in names}
    order = []
    for name in rng.choices(names, weights, k=total):
        if not queues[name]:
            queues[name] = rng.sample(members[name], len(members[name]))
        order.append(queues[name].pop())
    return order


def check_groups(groups: Sequence[str], shares: Mapping[str, float]) -> None:
    """Raise :class:`OptionsError` where ``shares`` names a group that is not among ``groups``."""
    there = set(groups)
    if missing := sorted(shares.keys() - there):
        raise OptionsError(
            f"sample names the groups {', '.join(missing)}, which no line has; "
            f"there are {', '.join(sorted(there)[:10])}."
        )


def group_by_length(order: Sequence[int], lengths: Sequence[int], batch: int, seed: int) -> list[int]:
    """``order`` with examples of about one length in a batch, as transformers' ``LengthGroupedSampler``."""
    rng = random.Random(f"length {seed}")
    result: list[int] = []
    for start in range(0, len(order), batch * _POOL):
        pool = sorted(order[start : start + batch * _POOL], key=lambda index: lengths[index])
        batches = [pool[at : at + batch] for at in range(0, len(pool), batch)]
        last = [batches.pop()] if len(batches[-1]) < batch else []  # a short one stays at the end
        rng.shuffle(batches)
        result += [index for one in batches + last for index in one]
    return result
