"""What is trained, on what and how, as plain data: the recipe, the table of methods, models and cards by name."""
