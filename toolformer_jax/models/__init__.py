"""The decoder: one architecture, every family a setting of it."""
