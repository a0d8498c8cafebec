"""An index in shards: `ShardsManifest` says which, each answers as a `Shard`, `ShardedIndex` searches all."""
