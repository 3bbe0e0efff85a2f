"""What a run's state is called, in the terminal, in the app and in JSON: a symbol, a word and the name of a colour."""

STATES = {
    "starting": ("◐", "starting", "accent"),
    "running": ("▶", "running", "success"),
    "paused": ("‖", "paused", "warning"),
    "ready": ("▷", "ready", "accent"),
    "done": ("✓", "done", "success"),
    "interrupted": ("■", "stopped", "warning"),
    "stopped": ("✗", "crashed", "error"),
    "diverged": ("▲", "diverged", "error"),
    "damaged": ("✗", "damaged", "error"),
}
"""By the state that a session's journal says. A run that ended without a word is "stopped" there, and one that was
taken back to a step, or forked at one, is "ready" to go on from it.
"""

ALIVE = ("starting", "running", "paused")  # a process writes the session
RESUMABLE = ("ready", "interrupted", "stopped", "diverged")
