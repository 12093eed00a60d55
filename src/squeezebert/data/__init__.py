"""From tables of text to labelled examples and batches."""
