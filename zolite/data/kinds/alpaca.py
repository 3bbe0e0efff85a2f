"""Instructions, each with an input or without, and their outputs: the columns of Alpaca, Dolly and their kin.

They are conversations of one question, in the model's chat template, since that is what Ollama, vLLM and others put
around what a person types. A model without one learns them in the words of Alpaca, from which its template is made.
"""

from typing import Any

from zolite.data.kinds import together
from zolite.data.kinds.completion import answers_in, prompt_faults
from zolite.data.kinds.kind import Names, Row
from zolite.data.kinds.messages import Conversations, MessagesError, Plain
from zolite.data.problems import as_text
from zolite.data.readers.reader import Record

BEFORE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n"
)
AFTER = "\n\n### Response:\n"


def _messages(record: Record) -> list[dict[str, Any]]:
    if type(record["instruction"]) is not str and (faults := prompt_faults(record, ["instruction"])):
        raise MessagesError("; ".join(faults))
    answers = answers_in(record["output"])
    if not answers or not answers[0].strip():
        raise MessagesError("column 'output' is blank" if answers else "column 'output' has no text")
    asked, more, system = (_cell(record, name) for name in ("instruction", "input", "system"))
    return [
        *([{"role": "system", "content": system}] if system.strip() else []),
        {"role": "user", "content": "\n\n".join([text for text in (asked, more) if text.strip()])},
        {"role": "assistant", "content": answers[0]},
    ]


def _cell(record: Record, name: str) -> str:
    value = record.get(name)
    return "" if value is None else as_text(value)


def _prompt(row: Row) -> str:
    before = "".join(f"{message['content']}\n\n" for message in row.messages[:-2])
    return before + BEFORE + str(row.messages[-2]["content"]) + AFTER


KIND = Conversations(
    name="alpaca",
    title="instructions and outputs (Alpaca): it learns to answer in the model's chat template",
    needed=("instruction", "output"),
    names=Names(
        optional=("input", "system"),
        spellings={
            "input": ("context",),
            "output": ("response", "completion", "answer"),
            "system": ("system_prompt",),
        },
        together=tuple(
            together.alone(together.beside_one_another(instruction=one, output=other))
            for one, other in (("user", "assistant"), ("human", "assistant"), ("human", "bot"), ("user", "bot"))
        ),
        becomes="a question and its answer in the model's chat template",
        answer=("output",),
    ),
    messages=_messages,
    sound=True,
    plain=Plain(_prompt, lambda row: str(row.messages[-1]["content"]), (BEFORE, AFTER)),
)
