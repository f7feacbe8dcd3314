"""Typed tools: what a plan may call."""
