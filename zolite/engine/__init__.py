"""Losses at many points of a space, on a batch of a model."""
