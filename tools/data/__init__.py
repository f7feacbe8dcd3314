"""Data pipelines: sources are found, inspected and built into published splits."""
