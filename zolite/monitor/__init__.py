"""What a run looks like, for every reader of its events: the terminal view, the app and reports."""
