"""Code that comes with a model: found before any library is asked to load it, and run only where a person said so.

    refuse(folder, name)     an architecture that transformers lacks, whose code lies beside the weights
    warning(folder, name)    what is said where `--trust-code` has it run

transformers asks on a terminal whether such code is to be run, unless it is told. Here it always is: a tokenizer, a
config or a model is loaded with trust_remote_code=False or, by a setting that the session records, True.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError

CONFIGS = ("config.json", "tokenizer_config.json")


def files(folder: Path) -> list[str]:
    """The files of code that a model's configs name, some of which may lie in other repositories."""
    named: set[str] = set()
    for config in CONFIGS:
        found = _read(folder / config).get("auto_map")
        values = found.values() if isinstance(found, dict) else [found]
        classes = [name for value in values for name in (value if isinstance(value, list) else [value])]
        named |= {f"{str(name).rpartition('.')[0]}.py" for name in classes if name}
    return sorted(named)


def refuse(folder: Path, name: str) -> None:
    """Raises UsageError for an architecture of which transformers has no code, but the model brings some."""
    from transformers import CONFIG_MAPPING

    config = _read(folder / "config.json")
    if "AutoConfig" in (config.get("auto_map") or {}) and config.get("model_type") not in CONFIG_MAPPING:
        raise refusal(name, files(folder))


def refusal(name: str, code: list[str]) -> UsageError:
    """Of a model that does not load without its code."""
    version = importlib.metadata.version("transformers")
    return UsageError(
        f"{name} comes with code of its own ({', '.join(code) or 'which its config names'}) for what transformers "
        f"{version} lacks, and zolite does not run a model's code",
        "take a model of an architecture that transformers has, or a version of it that has this one; --trust-code "
        "runs that code with all that you may do on this machine: read it first",
    )


def warning(folder: Path, name: str) -> tuple[str, ...]:
    """What a person should know of a model whose code is run; nothing where it has none."""
    code = files(folder)
    said = f"--trust-code: {name} runs code of its own, with all that you may do on this machine: {', '.join(code)}"
    return (said,) if code else ()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # a library says what is wrong with it
    return found if isinstance(found, dict) else {}
