"""An index in shards: built by jobs that run apart, merged, changed and trained again."""
