"""Trained gates and delta rules on tasks that drift."""
