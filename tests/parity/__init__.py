"""Parity with Hugging Face: random small RAG checkpoints, HF on one side, ragengine on the other."""
