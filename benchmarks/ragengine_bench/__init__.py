"""Latency of ragengine on this machine, beside transformers: programs with a report, not timed tests."""
