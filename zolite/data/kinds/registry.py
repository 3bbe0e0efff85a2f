"""The shapes of rows that zolite reads."""

from zolite.data.kinds import alpaca, choice, completion, label, messages, preference, question, sharegpt, text
from zolite.data.kinds.kind import Kind

# A record is of the first kind whose columns it has, so what needs more columns comes before what needs fewer of them.
_ALL: tuple[Kind, ...] = (
    preference.KIND,
    preference.MESSAGES,
    messages.KIND,
    sharegpt.KIND,
    choice.WITH_CONTEXT,
    choice.KIND,
    alpaca.KIND,
    messages.PAIR,
    completion.KIND,
    question.WITH_CONTEXT,
    question.KIND,
    label.KIND,
    text.KIND,
)

KINDS = {kind.name: kind for kind in _ALL}
"""name to kind"""
