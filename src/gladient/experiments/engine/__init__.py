"""What makes a figure: its work on workers, its folder, its results and its report."""
