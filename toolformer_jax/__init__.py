"""Toolformer (Schick et al. 2023) in JAX and Flax: models that teach themselves to use tools."""

__version__ = '0.1.0'
