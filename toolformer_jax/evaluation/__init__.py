"""Benchmarks of the paper: tasks, predictions, answer matching, scores, tables and plots."""
