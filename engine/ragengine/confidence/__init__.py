"""How far an answer can be trusted: features of an answer, a calibrated model of them, and the corpus."""
