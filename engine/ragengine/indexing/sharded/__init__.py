"""Building an index in shards by jobs that run apart: train once, build each shard, gather them."""
