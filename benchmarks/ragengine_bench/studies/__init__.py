"""Studies, each of one question about the engine."""
