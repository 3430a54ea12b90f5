"""Fine-tuning: texts with calls to a checkpoint that uses tools (paper, section 2, last step)."""
