"""Beam search, sampling and likelihoods over the decoder step."""
