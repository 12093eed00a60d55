"""Measuring latency, size and accuracy, and the report with its plots."""
