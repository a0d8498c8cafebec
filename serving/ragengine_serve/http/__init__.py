"""HTTP without meaning: connections, bodies, keys, errors, events."""
