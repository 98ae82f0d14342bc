"""Two small models that learn to remember, for the lens to look into."""
