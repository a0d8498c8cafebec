"""Processes: one server, or a supervisor with several workers."""
