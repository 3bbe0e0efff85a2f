"""The shapes of rows that zolite reads."""

from zolite.data.kinds import completion, label, messages
from zolite.data.kinds.kind import Kind

# A record is of the first kind whose columns it has, so what needs more columns comes before what needs fewer of them.
_ALL: tuple[Kind, ...] = (messages.KIND, completion.KIND, label.KIND)

KINDS = {kind.name: kind for kind in _ALL}
"""name to kind"""
