"""Questions with an answer of any text, by themselves or about a context."""

from zolite.data.kinds.completion import Completion
from zolite.data.kinds.kind import Names

SPELLINGS = {
    "answer": ("answers", "response", "answer_text", "correct_answer", "final_answer"),
    "context": ("passage", "paragraph", "support", "article"),
}


def _beside(column: str) -> bool:
    """Beside a label an answer may be a wrong one."""
    return column != "label"


NAMES = Names(
    becomes="a prompt and its completion",
    optional=("answers",),
    spellings=SPELLINGS,
    answer=("answer",),
    templates=True,
    beside=_beside,
)

KIND = Completion(
    name="question",
    title="questions and answers: it learns to answer",
    names=NAMES,
    answer="answer",
    template="Question: {question}\nAnswer: {answer}",
)

WITH_CONTEXT = Completion(
    name="question-context",
    title="questions about a context, and answers: it learns to answer",
    names=NAMES,
    answer="answer",
    template="Context: {context}\nQuestion: {question}\nAnswer: {answer}",
)
