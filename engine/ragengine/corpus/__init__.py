"""The texts that an index is built from."""
