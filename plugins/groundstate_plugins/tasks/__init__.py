"""Task terms: one file per plugin."""
