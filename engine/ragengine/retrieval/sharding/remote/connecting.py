"""From the entries of ``shards.json`` to shards that answer over HTTP."""

import contextlib
from collections.abc import Callable

from ragengine.errors import ShardError
from ragengine.retrieval.candidates import SearchFacts
from ragengine.retrieval.sharding.breaker import Breaker
from ragengine.retrieval.sharding.manifest import ShardEntry
from ragengine.retrieval.sharding.partial_shard import PartialShard
from ragengine.retrieval.sharding.remote.network import Network
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.shard import RemoteShard
from ragengine.retrieval.sharding.shard import Shard


def connector(
    options: RemoteOptions, *, allow_partial: bool
) -> Callable[[ShardEntry, int, SearchFacts], Shard]:
    """What makes the shards of one index out of their entries, numbers and what is known of the whole.

    A server of each is asked whether it has the index that its entry names.  With ``allow_partial`` one that
    does not answer is a warning in the log, and a search goes on without it (:class:`PartialShard`).

    Raises:
        ShardError: when called, a shard does not answer, or from another index.
    """
    network = Network()

    def connect(entry: ShardEntry, number: int, facts: SearchFacts) -> Shard:
        name = f"shard {number} ({', '.join(entry.addresses)})"
        shard = RemoteShard(name, entry, facts, network, options)
        if allow_partial:
            partial = PartialShard(shard, Breaker(options.rest))
            with contextlib.suppress(ShardError):  # it is in the log
                partial.asked(shard.info)
            return partial
        try:
            shard.info()
        except ShardError:
            shard.close()
            raise
        return shard

    return connect
