"""The terminal app. Imports errors, events, recipe, catalog, plan and session only: it never loads torch."""
