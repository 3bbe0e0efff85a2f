"""What train, dev and test are called."""

import re

SPLITS = ("train", "dev", "test")
DEV = ("dev", "validation", "valid", "val", "eval")  # what tools call it
NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(DEV, "dev")


def split_in(name: str) -> str:
    """The one split that the words of a name speak of: train of sst2_train-1; empty where it is none or several."""
    found = {NAMES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in NAMES}
    return found.pop() if len(found) == 1 else ""
