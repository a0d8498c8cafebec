"""Servers under load: ragengine's, and a plain one of transformers."""
