"""A server that speaks the OpenAI protocol; tools are called in the middle of its texts."""
