"""What a token costs, and how soon the first one comes: ``make bench``."""
