"""Model cards, and the table of released models with their costs and published accuracies."""
