"""Gin at the edge: no other room knows it."""
