"""The terminal app: it reads journals and starts trainers, and never loads torch itself."""
