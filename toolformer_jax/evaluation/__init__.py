"""Benchmarks of the paper: questions, judging, scores with intervals, tables and plots."""
