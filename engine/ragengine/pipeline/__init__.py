"""From a question and its documents to an answer."""
