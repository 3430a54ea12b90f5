"""Web pages that show an annotation run, whose folder is read without a lock."""
