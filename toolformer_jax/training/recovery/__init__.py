"""What fine-tuning recovers of a compressed model: distillation."""
