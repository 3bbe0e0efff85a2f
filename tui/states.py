"""What a session's state is called: a symbol, a word, and a colour of the theme."""

STATES = {
    "running": ("▶", "running", "success"),
    "paused": ("‖", "paused", "warning"),
    "done": ("✓", "done", "success"),
    "interrupted": ("■", "stopped", "warning"),
    "stopped": ("✗", "broke off", "error"),
    "diverged": ("▲", "diverged", "error"),
    "damaged": ("✗", "damaged", "error"),
}
ALIVE = ("running", "paused")
