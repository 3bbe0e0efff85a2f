"""What every package may use: errors, events, paths, text, and files that are written whole."""
