"""`python -m zolite.tui`: the app whatever the terminal is, as a browser's view needs it."""

from .app import open_app
from .served import end_with_server

if __name__ == "__main__":
    end_with_server()
    open_app()
