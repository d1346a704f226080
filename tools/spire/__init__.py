"""A real SPIRE in front of the service: its SVIDs mint, while it rotates them and its authorities."""
