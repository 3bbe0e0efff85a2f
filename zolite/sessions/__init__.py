"""Sessions on the disk: folder, journal and checkpoints, and what can be done with them. Loads no torch."""
