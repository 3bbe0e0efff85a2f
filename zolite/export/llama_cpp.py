"""llama.cpp as a reader: its own server, in this process, from the wheel `xllamacpp`. It is given texts, as a user's
tool gives them, and answers with tokens and their log-probabilities.
"""

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from zolite.common.errors import ZoliteError
from zolite.data.examples import Example, Query, Tokens
from zolite.export.readers import Opened, Reader
from zolite.export.source import Trained

PACKAGE = "xllamacpp"
ROUNDING = 2.5e-1  # nats a token: llama.cpp rounds activations to 8 bits where weights are quantized
ROOM = 64  # tokens of a context behind the longest row, for what is said there
EVERY = 1_000_000  # tokens: more than any vocabulary has
FORCED = 1e6  # added to a logit, before which no other token is likely; log-probabilities are taken without it


@dataclass(frozen=True)
class LlamaCpp:
    """A server that is gone when nobody holds it."""

    server: Any

    def losses(self, rows: Sequence[Example]) -> list[float]:
        return [-fmean(self._logprob(row, query) for query in row.queries) for row in rows]

    def generated(self, prompts: Sequence[Tokens], tokens: int) -> list[Tokens]:
        return [tuple(self._completed(prompt, n_predict=tokens)["tokens"]) for prompt in prompts]

    def typed(self, text: str) -> Tokens | None:
        return tuple(self._post("tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"])

    def logprobs(self, prompt: Sequence[int]) -> dict[int, float]:
        """Of every token that may follow."""
        (letter,) = self._post("tokenize", {"content": "a"})["tokens"]
        answer = self._completed(prompt, n_predict=1, n_probs=EVERY, logit_bias=[[letter, FORCED]])
        return {told["id"]: told["logprob"] for told in answer["completion_probabilities"][0]["top_logprobs"]}

    def _logprob(self, row: Example, query: Query) -> float:
        """Of one token in its place: it is made the likeliest, and told with what it had been.

        Nothing is told of a token that is half a character.
        """
        prompt = row.sequences[query.sequence][: query.position + 1]
        answer = self._completed(prompt, n_predict=1, n_probs=1, logit_bias=[[query.token, FORCED]])
        for told in answer.get("completion_probabilities", ()):
            if told["id"] == query.token:
                return float(told["logprob"])
        known = self.logprobs(prompt)
        if query.token not in known:
            raise ZoliteError(
                f"llama.cpp has no token {query.token}, which the session was trained on",
                "the GGUF file has another vocabulary than the tokenizer; --no-verify writes it all the same",
            )
        return known[query.token]

    def _completed(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        return self._post("completion", {"prompt": list(prompt), "temperature": 0, "return_tokens": True} | options)

    def _post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """To the server's own interface, past any proxy."""
        url, kind = f"{self.server.listening_address}/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(document).encode(), kind)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                read: dict[str, Any] = json.loads(answer.read())
                return read
        except OSError as error:
            what = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
            raise ZoliteError(
                f"llama.cpp does not answer: {what}", "--no-verify writes the export unchecked"
            ) from error


def open_(model: Path, adapter: Path | None = None, context: int = 1024) -> LlamaCpp:
    """llama.cpp on the CPU, with a LoRA-GGUF at its full strength or without.

    `context` is one conversation's: the server shares n_ctx among `n_parallel` of them, so there is one.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.fit_params = context, 1, False
    params.n_gpu_layers, params.warmup, params.verbosity = 0, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    try:
        return LlamaCpp(xllamacpp.Server(params))
    except RuntimeError as error:
        raise ZoliteError(
            f"llama.cpp does not load {adapter or model}: {error}",
            "nothing was written; please report this, with the model's name (--no-verify writes it all the same)",
        ) from error


def reader(files: Callable[[Trained, Path], tuple[Path, Path | None]]) -> Reader:
    """Where llama.cpp is installed and the base is a GGUF file; `files` are the model and the adapter of an export."""

    def serves(trained: Trained) -> bool:
        return trained.gguf is not None and importlib.util.find_spec(PACKAGE) is not None

    def opened(trained: Trained, folder: Path, device: torch.device) -> Opened:
        return open_(*files(trained, folder), trained.recipe.data.context + ROOM)

    return Reader((PACKAGE,), False, opened, ROUNDING, serves)
