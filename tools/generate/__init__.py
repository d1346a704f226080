"""What is generated from the declarations of settings: ``make generate``."""
