"""Presets on the ladder of gates."""
