"""Shards on other machines: the wire format, and the client of ``ragengine serve --shard``."""
