"""Learned token weights beside the best ones."""
