"""A grid of the user's own: settings, models and seeds."""
