"""The paper's tables and figures: its own values, and ours beside them."""
