"""Claims about rows with labels."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from zolite.common.errors import UsageError
from zolite.data.examples import Example, Fault
from zolite.data.kinds.kind import Row
from zolite.data.kinds.label import KIND, masked_text

LABELS = ("yes", "no", "a long way")
AROUND = (
    "{text} It was {label}.", "{label}: {text}", "{text}? {label}, {other}", "A {label} one: {text}",
    "{text} {label}",
)  # fmt: skip


@pytest.mark.parametrize(
    "template",
    [
        "{label}",
        "{text}",
        "{text} {label",
        "{text} label}",
        "{} {label}",
        "{text} {label} {label}",
        '{"text} {label}',
    ],
)
def test_templates_are_checked(template: str) -> None:
    """A template is text, columns and one label; the hint is an option that commands have."""
    with pytest.raises(UsageError, match=r"data\.template") as caught:
        KIND.columns(template)
    assert "--template" in caught.value.hint


def test_the_prompt_of_one_column_is_the_column() -> None:
    """What is typed stands where the column stood; where there are several, it is the prompt as a whole."""
    one = KIND.prompt("Say {text}:\n{label}")
    assert (one.before, one.after, one.column) == ("Say ", ":", "text")
    several = KIND.prompt("{a} or {b}? {label}")
    assert (several.before, several.after, several.column) == ("", "", "")
    assert several.template == "{a} or {b}? {label}"


def test_only_an_encoder_reads_behind_a_label(tokenizer: PreTrainedTokenizerFast) -> None:
    """A model that writes is told so, whatever stands there."""
    for template in AROUND[:-1]:
        with pytest.raises(UsageError, match=r"text behind \{label\}") as error:
            list(KIND.render([row()], LABELS, tokenizer, template, 64))
        assert "--template" in error.value.hint


def row(label: str = "no") -> Row:
    return Row(1, {"text": "blue river", "other": "so warm", "label": label})


def rendered(coder: PreTrainedTokenizerFast, template: str, label: str = "no", context: int = 64) -> Example:
    ((example, cut),) = KIND.render([row(label)], LABELS, coder, template, context)
    assert not cut and isinstance(example, Example)
    return example


@pytest.mark.parametrize("template", AROUND)
@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_an_encoder_reads_what_its_tokenizer_makes_of_the_text(
    kind: str, template: str, encoders: Callable[[str], Path]
) -> None:
    """With as many masks as a label has tokens; in their places the label's tokens are the text with the label."""
    coder = AutoTokenizer.from_pretrained(encoders(kind))
    for number, label in enumerate(LABELS):
        example = rendered(coder, template, label)
        assert (example.answer, example.candidates, example.text) == (number, len(LABELS), ())
        asked = [query for query in example.queries if query.candidate == number]
        sequence = list(example.sequences[asked[0].sequence])
        text = masked_text(row(), template, coder.mask_token * len(asked))
        assert sequence == coder(text).input_ids
        assert [i for i, token in enumerate(sequence) if token == coder.mask_token_id] == [q.position for q in asked]
        for query in asked:
            sequence[query.position] = query.token
        assert label in coder.decode(sequence, skip_special_tokens=True)


def test_labels_of_one_token_share_one_mask(encoders: Callable[[str], Path]) -> None:
    """So that their logits alone are compared, as LM-BFF and MeZO do."""
    coder = AutoTokenizer.from_pretrained(encoders("bert"))
    ((example, _),) = KIND.render([row()], LABELS[:2], coder, AROUND[0], 64)
    assert len(example.sequences) == 1 and len({query.position for query in example.queries}) == 1


def test_a_row_that_is_too_long_is_a_fault_with_the_context_that_would_do(encoders: Callable[[str], Path]) -> None:
    coder = AutoTokenizer.from_pretrained(encoders("bert"))
    need = max(map(len, rendered(coder, AROUND[0]).sequences))
    assert rendered(coder, AROUND[0], context=need)
    (fault,) = KIND.render([row()], LABELS, coder, AROUND[0], need - 1)
    assert isinstance(fault, Fault) and fault.context == need
