"""Retrieval for several training processes: the table of the article on RAG with Ray, measured here."""
