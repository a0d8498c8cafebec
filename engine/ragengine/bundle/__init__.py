"""The exported model: its manifest, its graphs, and the checks between them."""
