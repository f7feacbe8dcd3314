"""Launchers: a LaunchSpec becomes processes."""
