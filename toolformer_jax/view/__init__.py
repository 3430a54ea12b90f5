"""Shows an annotation run as web pages; its folder is read, neither locked nor written."""
