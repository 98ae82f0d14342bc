"""Would gating help on real prompts? Predicted, fitted and trained, on held-out clusters."""
