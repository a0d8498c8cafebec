"""The three trainings: from texts to a folder with weights, tokenizers and a report."""
