"""Is an exported adapter what was trained? Asked of plain transformers and peft, with none of zolite's layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zolite.data.template import Example

BATCH = 8  # rows a forward: whole logits are large


def reloaded(base: Any, folder: Path) -> Any:
    """The model with the adapter as peft puts it on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder)).eval()


@torch.inference_mode()
def accuracy(model: Any, rows: Sequence[Example]) -> float:
    """Share of rows whose right candidate has the highest mean token log-probability."""
    right = 0
    for i in range(0, len(rows), BATCH):
        right += sum(
            int(s.argmax()) == row.answer for row, s in zip(rows[i:], _scores(model, rows[i : i + BATCH]), strict=False)
        )
    return right / len(rows)


def _scores(model: Any, rows: Sequence[Example]) -> list[Tensor]:
    """Each row's candidates' scores (C,), from the model's own logits of whole sequences."""
    sequences = [torch.tensor(s) for row in rows for s in row.sequences]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(model.device)
    logits, first, scores = model(input_ids=ids, use_cache=False).logits, 0, []
    for row in rows:
        total = torch.zeros(row.candidates)
        for q in row.queries:
            total[q.candidate] += logits[first + q.sequence, q.position].float().log_softmax(dim=-1)[q.token].cpu()
        scores.append(total / torch.tensor([q.candidate for q in row.queries]).bincount())
        first += len(row.sequences)
    return scores
