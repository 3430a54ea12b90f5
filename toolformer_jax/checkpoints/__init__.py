"""Loads and exports models: Hugging Face, GGUF, PEFT and Orbax. Model families are in families/."""
