"""Differentially private training, by jax-privacy and dp-accounting."""
