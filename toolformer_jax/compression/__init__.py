"""Makes models small: fewer layers, heads, channels and weights, and fewer bits of each weight."""
