"""Checkpoints that another framework than PyTorch wrote, read without that framework."""
