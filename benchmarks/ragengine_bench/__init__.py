"""Benchmarks: ragengine on this machine, beside transformers and other engines."""
