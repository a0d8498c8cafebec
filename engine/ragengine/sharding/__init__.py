"""An index in shards, on this machine or on several."""
