"""Trained delta rules beside their exact risk."""
