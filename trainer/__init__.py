"""Training runs: a RunSpec becomes one job, and a job one RunResult."""
