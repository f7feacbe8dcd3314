"""The record: what was approved, reserved, leased, started and seen. The package underneath all others."""
