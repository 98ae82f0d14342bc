"""What gates are worth to small language models that are trained with and without them."""
