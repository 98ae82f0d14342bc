"""The paper's figure."""
