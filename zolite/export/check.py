"""Is an exported adapter what was trained? Asked of plain transformers and peft, with none of zolite's layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zolite.data.template import Example
from zolite.evaluate import by_length


def reloaded(base: Any, folder: Path) -> Any:
    """The model with the adapter as peft puts it on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder)).eval()


@torch.inference_mode()
def accuracy(model: Any, rows: Sequence[Example]) -> float:
    """Share of rows whose right candidate has the highest mean token log-probability, from full logits."""
    right = 0
    for batch in by_length(rows):
        right += sum(
            int(scores.argmax()) == rows[i].answer
            for i, scores in zip(batch, _scores(model, [rows[i] for i in batch]), strict=True)
        )
    return right / len(rows)


def _scores(model: Any, rows: Sequence[Example]) -> list[Tensor]:
    """Each row's candidates' scores (C,)."""
    sequences = [torch.tensor(s) for row in rows for s in row.sequences]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(model.device)
    logp = model(input_ids=ids, use_cache=False).logits.float().log_softmax(dim=-1).cpu()
    scores, first = [], 0
    for row in rows:
        found = [
            [logp[first + q.sequence, q.position, q.token] for q in row.queries if q.candidate == c]
            for c in range(row.candidates)
        ]
        scores.append(torch.stack([torch.stack(values).mean() for values in found]))
        first += len(row.sequences)
    return scores
