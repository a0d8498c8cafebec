"""Whether an answer stands in the documents that were read, and where."""
