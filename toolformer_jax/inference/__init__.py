"""Inference: scoring, branch sampling, and generation by continuous batching."""
