"""The tools that a model may call, and what runs them. Imports nothing of ours but `calls`."""
