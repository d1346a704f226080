"""The callers file, and the methods that authenticate callers."""
