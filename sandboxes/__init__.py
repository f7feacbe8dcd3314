"""Isolation for code that an agent or a user wrote: rewards, generated programs. `choice.choose` finds a backend."""
