"""A shard of an index that a server answers from."""
