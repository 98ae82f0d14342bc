"""The figures: a file each, or a folder where the work is long."""
