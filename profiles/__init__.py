"""Hardware, models and recipes that zolite knows by name."""
