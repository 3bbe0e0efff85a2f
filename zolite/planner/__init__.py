"""What fits this machine and how long it takes, by arithmetic alone: no weights are read and torch is not loaded."""
