"""zolite's own colours; the palette has Textual's beside them. No state is shown by colour alone."""

from textual.theme import Theme

DARK = Theme(
    name="zolite-dark",
    primary="#5fb3b3",
    secondary="#7aa2c7",
    accent="#e5c07b",
    foreground="#d8dee9",
    background="#12161c",
    surface="#1a2028",
    panel="#232b36",
    success="#8fbf7f",
    warning="#e0af68",
    error="#e06c75",
    variables={"footer-key-foreground": "#e5c07b", "block-cursor-text-style": "bold"},
)

LIGHT = Theme(
    name="zolite-light",
    primary="#1f7a7a",
    secondary="#2f5d8a",
    accent="#8a5a00",
    foreground="#1f2933",
    background="#f7f8fa",
    surface="#ffffff",
    panel="#e6eaef",
    success="#2f7d32",
    warning="#8a5a00",
    error="#b3261e",
    dark=False,
    variables={"footer-key-foreground": "#8a5a00", "block-cursor-text-style": "bold"},
)
