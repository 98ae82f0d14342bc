"""One model on one setting."""
