"""What a run's state is called, in the terminal and in the app: a symbol, a word and the name of a colour."""

STATES = {
    "starting": ("◐", "starting", "accent"),
    "running": ("▶", "running", "success"),
    "paused": ("‖", "paused", "warning"),
    "done": ("✓", "done", "success"),
    "interrupted": ("■", "stopped", "warning"),
    "stopped": ("✗", "crashed", "error"),
    "diverged": ("▲", "diverged", "error"),
    "damaged": ("✗", "damaged", "error"),
}
"""By the state that a session's journal says. A run that ended without a word is "stopped" there."""

ALIVE = ("starting", "running", "paused")  # a process writes the session
