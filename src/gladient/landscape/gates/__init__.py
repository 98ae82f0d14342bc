"""What weighted steps can reach: the best weights of each gate family, and the landscape that they lie in."""
