"""transformers' own RAG classes as the reference."""
