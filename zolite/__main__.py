"""`python -m zolite` is `zolite`."""

from zolite.cli import main

main()
