"""Evaluation: suites, item-level results, statistics, verdicts and the seal."""
