"""Pictures, sound and video: the table of a text's files, and safe decoding."""
