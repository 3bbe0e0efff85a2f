"""`python -m zolite.tui`: the app whatever the terminal is, as a browser's view needs it."""

from .app import open_app

if __name__ == "__main__":
    open_app()
