"""Answers to a file of questions: resumable, in several processes."""
