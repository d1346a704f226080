"""The use cases and their background tasks."""
