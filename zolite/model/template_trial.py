"""Does a chat template come to an end? It is a program from elsewhere, so that it is run once where it can be killed.

Short conversations are rendered by a child of this process, with so much time and memory. On systems that cannot fork
nothing is tried.
"""

import multiprocessing
import sys
import warnings
from typing import Any

from zolite.common.errors import ZoliteError

SECONDS, MIB = 5, 512  # of processor time, and beyond what the process has already
PATIENCE = 120  # seconds on the clock: the machine may be busy
TALK = (
    {"role": "user", "content": "a question"},
    {"role": "assistant", "content": "an answer"},
    {"role": "user", "content": "another"},
)
TRIALS = tuple((messages, prompt) for messages in (TALK[:1], TALK[:2], TALK) for prompt in (False, True))


def try_template(tokenizer: Any, name: str) -> None:
    """Raises ZoliteError where the tokenizer's template takes more; errors of its own are for whoever renders it."""
    if not getattr(tokenizer, "chat_template", None) or sys.platform != "linux":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child uses none
        child = multiprocessing.get_context("fork").Process(target=_trial, args=(tokenizer,), daemon=True)
        child.start()
    child.join(PATIENCE)
    child.kill()
    child.join()
    if child.exitcode:
        raise ZoliteError(
            f"the chat template of {name} does not render three messages in {SECONDS} s and {MIB} MiB",
            "put the template that the model was published with into its tokenizer_config.json or chat_template.jinja",
        )


def _trial(tokenizer: Any) -> None:
    """Exits with a status other than 0, or is killed, where it takes too much."""
    import resource  # which Windows lacks

    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115 - it ends at once
    most = pages * resource.getpagesize() + (MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for messages, prompt in TRIALS:
        try:
            tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
        except MemoryError:
            sys.exit(1)
        except Exception:  # noqa: BLE001 - it is rendered again where such an error is of interest
            continue
