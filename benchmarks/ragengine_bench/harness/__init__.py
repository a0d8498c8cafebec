"""Engines in processes of their own, their runs, and the report with its tables."""
