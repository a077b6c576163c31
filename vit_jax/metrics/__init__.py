"""A run's numbers: exact means, the writers of its records, the records read again, and their curves."""
