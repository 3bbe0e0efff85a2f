"""Rows, prompts and batches."""
