"""An app in a browser ends with its server, however that ends."""

import os
import threading
import time

SERVER = "ZOLITE_SERVER"  # the number of the process that serves it
LOOK_SECONDS = 0.5


def end_with_server() -> None:
    """Does nothing for an app in a terminal."""
    number = os.environ.pop(SERVER, "")  # not for runs that the app starts: they go on
    if number.isdigit():
        threading.Thread(target=_watch, args=(int(number),), daemon=True).start()


def _watch(server: int) -> None:
    """At once, since there is nobody to draw for. Whose parent has ended has another one."""
    while os.getppid() == server:
        time.sleep(LOOK_SECONDS)
    os._exit(0)
