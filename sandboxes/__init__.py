"""Isolation for code that an agent wrote."""
