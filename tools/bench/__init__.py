"""What a token costs, beside what, and how that grows: ``make bench``, ``bench-growth``, ``bench-vault``."""
