"""Inference: scoring, branch sampling, and generation by continuous batching.

It depends on neither tools nor files.
"""
