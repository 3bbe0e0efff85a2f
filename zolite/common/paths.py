"""Where things are kept. Nothing here creates a folder or touches the network."""

import os
from pathlib import Path

import platformdirs


def paths() -> dict[str, Path]:
    """data, sessions, cache, config, state and hub (downloaded models), by the environment of this moment."""
    data = _chosen("ZOLITE_HOME") or platformdirs.user_data_path("zolite")
    return {
        "data": data,
        "sessions": data / "sessions",
        "cache": _chosen("ZOLITE_CACHE") or platformdirs.user_cache_path("zolite"),
        "config": platformdirs.user_config_path("zolite"),
        "state": platformdirs.user_state_path("zolite"),
        "hub": _hub(),
    }


def _hub() -> Path:
    """The folder huggingface_hub would use, by its own rules; importing it for this takes a second."""
    home = _chosen("HF_HOME") or (_chosen("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return _chosen("HF_HUB_CACHE") or home / "hub"


def _chosen(variable: str) -> Path | None:
    """The folder an environment variable names; an empty one counts as not set."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None
