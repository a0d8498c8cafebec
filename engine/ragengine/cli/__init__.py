"""The `ragengine` command line."""
