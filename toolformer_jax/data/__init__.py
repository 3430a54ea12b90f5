"""Documents: records, readers of corpora, splitting, dates, and the catalogue of downloads."""
