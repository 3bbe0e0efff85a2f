"""`zolite` alone on a terminal is the app; everything else is a command."""

import gc
import os
import sys


def main() -> None:
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))  # Textual draws on stderr
    if len(sys.argv) == 1 and terminal and os.environ.get("TERM", "dumb") != "dumb":
        gc.disable()  # there is nothing to collect while modules are read: a tenth of the time to the first picture
        from zolite.tui.app import open_app  # before the command line, which takes as long again to import

        gc.enable()
        open_app()
        return
    from zolite.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
