"""A page about one run, or several beside each other: one HTML file that needs nothing else."""
