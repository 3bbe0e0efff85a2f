"""Claims about the command line: what it prints where, its exit codes, its errors, and what Ctrl-C leaves."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite import __version__
from zolite.cli import main, process
from zolite.common import events
from zolite.common.events import (
    Concluded,
    Continued,
    Evaluated,
    Event,
    Finished,
    Noted,
    Paused,
    Saved,
    Started,
    StepDone,
    Working,
)
from zolite.config.methods import METHODS
from zolite.config.recipe import SETTINGS
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training.replay import factors_at

ENTRY = [sys.executable, "-c", "from zolite.cli.main import main; main()"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[Event]:
        return [events.from_json(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def zolite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """zolite("train", …) runs main() in this process, since a new one takes seconds to import torch."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["zolite", *map(str, words)])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def words(tiny: Path, folder: Callable[..., Path]) -> Callable[..., list[str]]:
    """words(steps=3, …) is a quick train command; data=None leaves --data at its label rows."""

    def make(model: object = tiny, data: object = None, quant: str = "float32", **options: object) -> list[str]:
        given = {"quant": quant, "device": "cpu", "rank": 4, "steps": 3, "batch": 6, "context": 128, **options}
        flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return ["train", str(model), "--data", str(data or folder()), *flags]

    return make


Words = Callable[..., list[str]]
Zolite = Callable[..., Ended]


def blames(ended: Ended, code: int = 2) -> tuple[str, str]:
    """(what was wrong, its list included; what to do) of an error as it must look."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    lines = ended.err.strip().splitlines()
    assert [line.partition(":")[0] for line in lines if line[:1] != " "] == ["error", "hint"], ended.err
    assert lines[0].startswith("error: ") and lines[-1].startswith("hint: ") and len(lines[-1]) > 10
    return "\n".join(lines[:-1]), lines[-1]


# Commands that tell


def test_version_and_help(zolite: Zolite) -> None:
    """--version prints name and version; no arguments print the help, with every command."""
    assert zolite("--version").out == f"zolite {__version__}\n"
    ended = zolite()
    for command in ("demo", "train", "resume", "eval", "export", "report", "sessions", "doctor", "methods", "paths"):
        assert command in ended.out + ended.err
    assert "Traceback" not in ended.err
    assert zolite("train", "--help").code == 0


def test_methods_and_paths(zolite: Zolite, home: Path) -> None:
    """Both print a table and, with --json, one document with the same in it."""
    found = zolite("methods", "--json")
    assert [m["name"] for m in found.document] == list(METHODS)
    costs = {m["name"]: (m["forwards_per_step"], m["state_bytes"]) for m in found.document}
    assert costs["mezo"] == (2, "0") and costs["mezo-adam"] == (2, "8 n") and costs["pgap"][0] == 2.2
    assert all(m["sampler"] and m["estimator"] and m["spaces"] and m["paper"] for m in found.document)
    table = zolite("methods")
    assert table.code == 0 and all(name in table.out for name in METHODS)
    assert zolite("paths", "--json").document["sessions"] == str(home / "sessions")
    assert str(home / "sessions") in zolite("paths").out
    assert not home.exists()  # looking makes nothing


def test_doctor(zolite: Zolite) -> None:
    """doctor --json is a list of checks, and the exit code is that of the worst."""
    ended = zolite("doctor", "--json")
    checks = ended.document
    assert all(isinstance(check, dict) and check for check in checks) and len(checks) >= 4
    assert ended.code in (0, 1, 2)
    assert all(isinstance(events.from_json(line), Working) for line in ended.err.splitlines())
    lines = zolite("doctor").out
    assert all(check["name"] in lines for check in checks)


# A session's life


def test_from_training_to_export(
    zolite: Zolite, words: Words, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train, list, show, eval, export and a refused resume agree on one session; --json documents are whole."""
    data = folder()
    ended = zolite(*words(data=data, steps=4, name="first"), "--plain")
    assert ended.code == 0 and ended.err == ""
    assert "step" in ended.out and "dev" in ended.out and "{" not in ended.out and "\x1b" not in ended.out

    (row,) = zolite("sessions", "list", "--json").document
    assert (row["name"], row["status"], row["step"], row["steps"]) == ("first", "done", 4, 4)
    table = zolite("sessions", "list").out
    assert "first" in table and "4 of 4" in table
    shown = zolite("sessions", "show", "first", "--json").document
    assert shown["step"] == 4 and shown["recipe"]["train"]["steps"] == 4 and 4 in shown["checkpoints"]
    assert shown["facts"]["labels"] == ["no", "yes"]
    assert "steps: 4" in zolite("sessions", "show", "first").out

    scored = zolite("eval", "first", "--data", data / "dev.jsonl", "--json").document
    last = [e for e in shown["evaluations"] if e["step"] == 4][-1]
    assert (scored["step"], scored["metric"], scored["rows"]) == (4, "accuracy", 8)
    assert scored["value"] == last["value"]
    assert (scored["says"], scored["said_right"]) == (last["says"], last["said_right"])
    assert "says a label" in zolite("eval", "first", "--data", data).out
    page = tmp_path / "page.html"
    assert zolite("report", "first", "--to", page, "--json").document["page"] == str(page)
    assert "of 8 rows are right" in page.read_text(encoding="utf-8")  # as the last of them found them

    out = tmp_path / "adapter"
    exported = zolite("export", "first", "--to", out, "--json").document
    assert (exported["steps"], exported["path"]) == ([4], str(out))
    assert exported["checks"][0]["apart"] <= exported["checks"][0]["allowed"]
    assert (out / "adapter_model.safetensors").is_file()
    assert "not empty" in blames(zolite("export", "first", "--to", out))[0]
    lines = zolite("export", "first", "--to", out, "--force", "--format", "merged", "--step", "2,4").out
    assert "first at step 2 and 4 as merged" in lines and "checked with transformers" in lines
    assert "ollama create first" in lines and not (out / "adapter_model.safetensors").exists()
    assert "--format bin is not one of" in blames(zolite("export", "first", "--to", out, "--format", "bin"))[0]
    one = tmp_path / "one.gguf"
    said = zolite("export", "first", "--to", one, "--no-verify").out
    assert "first at step 4 as gguf" in said and one.read_bytes()[:4] == b"GGUF" and str(one) in said
    assert "zolite-export" not in said and not list(tmp_path.glob(".zolite-export-*"))
    assert "exists" in blames(zolite("export", "first", "--to", one))[0]
    assert "is no .gguf file" in blames(zolite("export", "first", "--to", tmp_path / "b.gguf", "--format", "peft"))[0]
    monkeypatch.chdir(tmp_path)
    assert zolite("export", "first", "--no-verify").out.startswith(str(tmp_path / "first-peft"))
    monkeypatch.setattr("zolite.cli.process.follow", None)  # a run that is over is answered before anything is loaded
    error, hint = blames(zolite("resume", "first"))
    assert "has taken all its 4 steps" in error and "`zolite resume first --steps 8 --force`" in hint


def test_training_goes_on_from_an_adapter(
    zolite: Zolite, words: Words, folder: Callable[..., Path], tmp_path: Path
) -> None:
    """--from-adapter takes rank and targets from the folder, trains A and B, and names what was asked for otherwise."""
    data, out = folder(), tmp_path / "adapter"
    assert zolite(*words(data=data, targets="q_proj", lr=0.05, name="first"), "--plain").code == 0
    assert zolite("export", "first", "--to", out, "--no-verify").code == 0
    again = [*words(data=data, name="second"), "--from-adapter", out]
    recipe = zolite(*again, "--dry-run", "--json").document["recipe"]["adapter"]
    assert (recipe["rank"], recipe["targets"], recipe["space"]) == (4, ["q_proj"], "lora")
    assert zolite(*again, "--plain").code == 0
    assert zolite("sessions", "show", "second", "--json").document["recipe"]["adapter"] == recipe
    wrong = [*words(data=data, rank=7), "--from-adapter", out]
    assert "adapter.rank was to be 7, the adapter's is 4" in blames(zolite(*wrong))[0]


@pytest.mark.parametrize(
    "path",
    ["relative", "absolute"],
)
def test_a_model_is_scored_as_it_is(
    zolite: Zolite, tiny: Path, words: Words, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """eval on a model is the score that a session has at step 0, in each metric."""
    monkeypatch.chdir(tiny.parent)
    model = tiny if path == "absolute" else f"./{tiny.name}"
    for kind in ("label", "completion"):
        data = folder(kind)
        run = zolite(*words(data=data, steps=1, name=f"of-{kind}"), "--json")
        first = next(e for e in run.events if isinstance(e, Evaluated))
        args = ["eval", model, "--data", data / "dev.jsonl", "--quant", "float32", "--device", "cpu", "--json"]
        ended = zolite(*args)
        assert ended.code == 0, ended.err
        found = ended.document
        assert found["step"] == 0 and found["metric"] == first.metric
        assert found["value"] == pytest.approx(first.value, rel=1e-6)


def test_a_dry_run_loads_and_leaves_nothing(
    zolite: Zolite, words: Words, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dry-run reports the recipe and the rows; no weight is read and no session made."""
    monkeypatch.setattr("zolite.model.load.load", None)
    found = zolite(*words(), "--dry-run", "--json").document
    assert found["rows"] == {"train": 24, "dev": 8, "test": 8} and found["kind"] == "label"
    assert found["recipe"]["train"]["lr"] == 0.003  # resolved
    assert not home.exists()


def test_a_dry_run_refuses_what_the_run_would(
    zolite: Zolite, tiny: Path, tmp_path: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token beyond the embedding table, with its line; and it warns of rows that dev shares with train."""
    monkeypatch.setattr("zolite.model.load.load", None)
    rows = [{"prompt": f"Ask {i}:", "completion": f" done {i}"} for i in range(12)]
    for split, part in (("train", rows), ("dev", rows[:2])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (warning,) = zolite(*words(data=tmp_path), "--dry-run", "--json").document["warnings"]
    assert warning.startswith("leakage: 2 of 2 dev rows found in train too (2 the same)")
    read = models.vocabulary
    monkeypatch.setattr(models, "vocabulary", lambda *a: replace(read(*a), table=263))
    for arguments in ([*words(data=tmp_path), "--dry-run"], words(data=tmp_path)):
        ended = zolite(*arguments)
        assert ended.code == 2 and ended.err.startswith("error: 14 rows cannot be used:") and "resize" in ended.err
        assert "\n  train.jsonl: line 6: token 263, '<|im_end|>', is beyond" in ended.err


def dry(zolite: Zolite, *arguments: object) -> Any:
    """The recipe of a dry run."""
    ended = zolite(*arguments, "--dry-run", "--json")
    assert ended.code == 0, ended.err
    return ended.document["recipe"]


def test_every_setting_with_a_flag_is_set_by_each_of_its_names(
    zolite: Zolite, words: Words, tiny: Path, tmp_path: Path
) -> None:
    """`zolite train` takes every flag that a setting has, and what it sets is that setting."""
    data, one_file = words()[3], tmp_path / "rows.csv"
    rows = [f"text {i},{'ab'[i % 2]},{'train' if i < 16 else 'val'},user {i % 5}\n" for i in range(20)]
    one_file.write_text("text,label,part,user\n" + "".join(rows))
    films = tmp_path / "films.csv"
    films.write_text("sentence,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(20)))
    places = {"data.split_by": one_file, "data.group_by": one_file, "data.task": films}
    values = {
        "model.name": tiny, "model.quant": "nf4", "model.device": "cpu", "adapter.space": "lora", "adapter.rank": 5,
        "adapter.targets": "q_proj", "data.path": data, "data.template": "{text}: {label}", "data.context": 99,
        "method.name": "lozo", "train.objective": "rank", "train.steps": 11, "train.epochs": 2, "train.batch": 7,
        "train.copies": 3, "train.lr": 0.25, "train.eps": 0.5, "train.seed": 9, "train.vram_gib": "2GiB",
        "data.dev_share": 0.25, "data.split_seed": 3, "data.split_by": "part", "data.group_by": "user",
        "data.columns": "text=text,label=label", "data.task": "sst2", "model.trust_code": True,
    }  # fmt: skip
    flags = {path: each.meaning.flags for path, each in SETTINGS.items() if each.meaning.flags}
    assert values.keys() == flags.keys()
    shown = {"adapter.targets": ["q_proj"], "train.vram_gib": 2.0, "model.name": str(tiny)}
    for path, names in flags.items():
        for name in names:
            given = {"--model": tiny, "--data": places.get(path, data)} | {name: values[path]}
            words_ = (word for pair in given.items() for word in pair if word is not True)
            recipe = dry(zolite, "train", *words_)
            part, _, key = path.partition(".")
            wanted = shown.get(path, values[path])
            assert path == "train.epochs" or recipe[part][key] == wanted, name
    assert dry(zolite, "train", tiny, "--data", data, "--epochs", 2, "--batch", 8)["train"]["steps"] == 6  # 24 rows


def test_names_that_other_tools_have(zolite: Zolite, words: Words) -> None:
    """Commands by other names do the same, and help does not list them twice."""
    _, *rest = words()
    for alias in ("run", "finetune"):
        assert dry(zolite, alias, *rest) == dry(zolite, "train", *rest)
    listed = [zolite(*words, "--json").document for words in (("list",), ("ls",), ("sessions", "list"))]
    assert listed == [[], [], []]
    blames(zolite("generate", "nobody"))
    ended = zolite("--help")
    assert not any(line[1:].split()[:1] == [alias] for alias in main.ALIASES for line in ended.out.splitlines())


def test_a_wrong_command_is_told_the_right_one(zolite: Zolite) -> None:
    """One that is spelled alike, and one that is another's: no list is to be read for it."""
    assert "Did you mean 'train'?" in zolite("trian").err
    assert "`zolite sessions rm first`" in blames(zolite("rm", "first"))[1]


def test_help_lists_commands_in_the_order_of_use(zolite: Zolite) -> None:
    lines = [line[1:].split()[:1] for line in zolite("--help").out.splitlines()]
    places = [lines.index([name]) for name in ("demo", "train", "chat", "export", "plan", "doctor", "paths")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("old", "now"),
    [
        (["--slots", "2"], "train.slots=2 is now train.copies=2"),
        (["--set", "train.slots=2"], "train.slots=2 is now train.copies=2"),
        (["--set", "train.vram_gib=0"], "train.vram_gib=0 is now train.vram_gib=none"),
        (["--set", "train.patience=0"], "train.patience=0 is now train.patience=never"),
        (["--lr", "0"], "train.lr=0 is now train.lr=auto"),
        (["--set", "method.sampler=signs"], "method.sampler=signs is now method.sampler=rademacher"),
        (["--set", "adapter.readout=false"], "adapter.readout=false is now adapter.linear_probe=false"),
    ],
)
def test_what_was_written_before_is_taken_with_one_note(zolite: Zolite, words: Words, old: list[str], now: str) -> None:
    """An old name or a 0 for an open value works; one line on stderr says how it is written now."""
    command = [*words(), "--dry-run", "--json"]
    ended = zolite(*command, *old)
    assert ended.code == 0 and ended.err.startswith(f"note: {now}") and len(ended.err.splitlines()) == 1
    again = zolite(*command, "--set", now.rpartition(" ")[2])
    assert again.err == "" and again.document["recipe"] == ended.document["recipe"]


def test_an_open_value_may_be_said(zolite: Zolite, words: Words) -> None:
    """`auto` on the command line is what a flag that was left out means."""
    recipe = dry(zolite, *words(), "--rank", "auto", "--lr", "auto", "--vram", "none")
    assert (recipe["adapter"]["rank"], recipe["train"]["lr"], recipe["train"]["vram_gib"]) == (8, 0.003, "none")


def test_verbose_is_handed_to_the_view(zolite: Zolite, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run to the view, which shows numbers for experts with it alone; of a plan to its remarks."""
    seen: list[bool] = []
    monkeypatch.setattr("zolite.cli.train.follow", lambda run, plain, as_json, verbose, data: seen.append(verbose))
    for extra in ((), ("--verbose",), ("-v",)):
        assert zolite(*words(), *extra).code == 0
    assert seen == [False, True, True]
    plan = ("plan", "smollm2-135m", "--vram", "8GiB")
    assert "log2" not in zolite(*plan).out and "log2" in zolite(*plan, "--explain").out


MISSING = {
    "no model": (["train", "--data", "rows.jsonl"], "train needs MODEL"),
    "no rows": (["train", "some/model"], "train needs MODEL and --data PATH"),
    "two models": (["train", "a/b", "--model", "c/d", "--data", "rows.jsonl"], "two models: a/b and --model c/d"),
    "two lengths": (["train", "a/b", "--data", "x", "--steps", "3", "--epochs", "1"], "both --steps and --epochs"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_or_twice_is_named(zolite: Zolite, what: str) -> None:
    """Exit code 2, with what is missing or contradicts itself."""
    arguments, text = MISSING[what]
    assert text in blames(zolite(*arguments))[0]


@pytest.mark.parametrize("option", [("--template",), ("--set", "data.template=")])
def test_backslash_n_in_a_template_is_a_new_line(zolite: Zolite, words: Words, option: tuple[str, ...]) -> None:
    """A shell passes \\n in quotes as two characters; nobody wants those in a prompt."""
    text = option[-1].removeprefix("--template") + r"{text}\nIt is {label}"
    found = zolite(*words(), "--dry-run", "--json", option[0], text).document
    assert found["recipe"]["data"]["template"] == "{text}\nIt is {label}"


def test_a_stopped_run_resumes(zolite: Zolite, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first Ctrl-C ends a run with 130 and the command that goes on; that command finishes it."""
    shown = process._Audience.__call__

    def interrupted(self: process._Audience, event: Event) -> None:
        shown(self, event)
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(process._Audience, "__call__", interrupted)
    ended = zolite(*words(steps=9, name="stopped"), "--json")
    assert ended.code == 130
    last = ended.events[-1]
    assert isinstance(last, Finished) and last.reason == "interrupted" and 3 <= last.step < 9
    assert ended.err.splitlines() == [
        "finishing this step and saving; Ctrl-C again exits at once",
        f"stopped at step {last.step}; `zolite resume stopped` goes on",
    ]
    (row,) = zolite("sessions", "list", "--json").document
    assert (row["status"], row["step"]) == ("interrupted", last.step)
    monkeypatch.setattr(process._Audience, "__call__", shown)
    resumed = zolite("resume", "stopped", "--json")
    assert resumed.code == 0
    assert [e.step for e in resumed.events if isinstance(e, StepDone)] == list(range(last.step + 1, 10))


# Errors


def write(folder: Path, split: str, *lines: object) -> Path:
    """Replaces a file of a data folder; what is no text is written as JSON."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text)
    return folder


GOOD = ({"text": "a", "label": "yes"}, {"text": "b", "label": "no"})
LONG = {"text": "x" * 150, "label": "no"}
# What is wrong with the data, and what the error must say of it.
BAD_DATA: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (lambda d: d / "nowhere.jsonl", ("nowhere.jsonl", "is no file and no folder")),
    "empty": (lambda d: write(d, "train"), ("train.jsonl", "no rows")),
    "no columns": (
        lambda d: write(d, "train", *GOOD, {"words": "c"}, {"text": "d"}),
        ("train.jsonl: line 3: no column 'text'", "train.jsonl: line 4: no column 'label'"),
    ),
    "not JSON": (lambda d: write(d, "dev", GOOD[0], "{oops"), ("dev.jsonl: line 2: not JSON",)),
    "unknown label": (
        lambda d: write(d, "test", GOOD[0], {"text": "c", "label": "maybe"}),
        ("test.jsonl: line 2: label 'maybe'",),
    ),
    "no room": (
        lambda d: write(d, "train", *GOOD, LONG),
        ("train.jsonl: line 3: prompt of", "leaves no room for the answer at context 128"),
    ),
}


@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data_is_told_by_line(
    zolite: Zolite, words: Words, folder: Callable[..., Path], home: Path, what: str
) -> None:
    """Data that cannot be trained on: exit code 2, where and what it is, what to do, and no session."""
    spoil, said = BAD_DATA[what]
    error, hint = blames(zolite(*words(data=spoil(folder()))))
    assert all(text in error for text in said), error
    assert what != "no room" or "data.context=" in hint
    assert not (home / "sessions").exists()


def test_unknown_targets_list_the_real_ones(zolite: Zolite, words: Words, home: Path) -> None:
    """A linear layer that the model lacks is named, with those that it has."""
    error, hint = blames(zolite(*words(targets="q_proj,qkv")))
    assert "no linear layer is called qkv" in error
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in hint
    assert not (home / "sessions").exists()


def test_a_model_that_does_not_load(zolite: Zolite, words: Words, home: Path, tmp_path: Path, tiny: Path) -> None:
    """A folder without a config, one with broken weights, and a hub name without a network end in one error each."""
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    for path in (empty, broken):
        path.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(
            file.read_bytes()[:5000] if file.suffix == ".safetensors" else file.read_bytes()
        )
    told = {
        empty: (f"{empty} does not load: ", "whole"),
        broken: (f"{broken}/model.safetensors cannot be read: it is cut: 5,000 bytes are there", "again"),
        "nobody/no-such-model": ("nobody/no-such-model does not load: ", "online"),
    }
    for model in told:
        error, hint = blames(zolite(*words(model=model)), code=1)
        what, remedy = told[model]
        assert what in error and remedy in hint
        assert not (home / "sessions").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(zolite: Zolite, words: Words, home: Path) -> None:
    """--device cuda without one is refused, and the way to find out why is named."""
    error, hint = blames(zolite(*words(device="cuda")))
    assert "cuda" in error.lower() and "zolite doctor" in hint
    assert not (home / "sessions").exists()


BAD_SETTINGS = {
    "unknown key": (["--set", "train.stepz=3"], "train.stepz: no such setting (did you mean train.steps?)"),
    "no part": (["--set", "lr=3"], "lr: no such setting (did you mean train.lr?)"),
    "no number": (["--set", "train.lr=fast"], "train.lr: 'fast' is not a number"),
    "out of range": (["--set", "train.copies=65"], "train.copies is 65, not 1 to 64"),
    "unknown method": (["--method", "sgd"], "method.name is 'sgd', not one of mezo"),
    "unknown quant": (["--quant", "int3"], "model.quant is 'int3'"),
    "unusable name": (["--name", "../up"], "'../up' cannot be a session's name"),
    "no recipe": (["--recipe", "nowhere.toml"], "recipe nowhere.toml cannot be read"),
}


@pytest.mark.parametrize("what", BAD_SETTINGS)
def test_bad_settings_are_refused(zolite: Zolite, words: Words, home: Path, what: str) -> None:
    """A setting that is not one, or has no such value: exit code 2, which, and no session."""
    extra, said = BAD_SETTINGS[what]
    assert said in blames(zolite(*words(), *extra))[0]
    assert not (home / "sessions").exists()


def test_several_bad_settings_are_told_at_once(zolite: Zolite, words: Words) -> None:
    """Two faults of a recipe are one error."""
    error, _ = blames(zolite(*words(), "--set", "train.stepz=3", "--set", "adapter.rank=-1"))
    assert "train.stepz" in error and "adapter.rank is -1" in error


def test_a_setting_without_a_value_is_refused(zolite: Zolite, words: Words, home: Path) -> None:
    """--set without = is a usage error of exit code 2 that quotes it."""
    ended = zolite(*words(), "--set", "train.steps")
    assert ended.code == 2 and "'train.steps' is not KEY=VALUE" in ended.err and "Traceback" not in ended.err
    assert not (home / "sessions").exists()


def test_a_locked_session_is_left_alone(zolite: Zolite, words: Words) -> None:
    """While another writes a session, resume says who and ends with 1; looking and exporting still work."""
    zolite(*words(steps=2, name="busy"))
    with sessions.open_("busy", write=True):
        error, _ = blames(zolite("resume", "busy"), code=1)
        assert f"session busy is being written by process {os.getpid()}" in error
        assert zolite("sessions", "show", "busy").code == 0
        assert zolite("sessions", "list", "--json").document[0]["status"] == "running"
    error, hint = blames(zolite(*words(steps=2, name="busy")))
    assert "session busy is there already" in error and "zolite resume busy" in hint


def test_sessions_that_are_not_there(zolite: Zolite, words: Words, tmp_path: Path) -> None:
    """resume, export and show of an unknown session name one that is alike."""
    zolite(*words(steps=1, name="first"))
    for command in (["resume", "frist"], ["sessions", "show", "frist"], ["export", "frist", "--to", tmp_path / "out"]):
        error, hint = blames(zolite(*command))
        assert "there is no session frist" in error and "did you mean first?" in hint
    assert not (tmp_path / "out").exists()


def test_eval_refuses_what_it_cannot_score(zolite: Zolite, words: Words, folder: Callable[..., Path]) -> None:
    """Rows with labels that the session never saw are told by line."""
    zolite(*words(steps=1, name="run"))
    data = write(folder(), "test", GOOD[0], {"text": "c", "label": "maybe"})
    error, _ = blames(zolite("eval", "run", "--data", data))
    assert "test.jsonl: line 2: label 'maybe'" in error


def test_eval_writes_every_prediction(
    zolite: Zolite, words: Words, folder: Callable[..., Path], tmp_path: Path
) -> None:
    """--out is a JSON object a row in a new file; what stands in its way is told before a model loads."""
    data, out = folder(), tmp_path / "predictions.jsonl"
    zolite(*words(data=data, steps=1, name="run"))
    found = zolite("eval", "run", "--data", data, "--out", out, "--json").document
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == found["rows"] == 8 and {"line", "prompt", "label", "ranked", "said", "base"} <= rows[0].keys()
    assert sum(row["label"] == row["ranked"] for row in rows) == found["value"] * 8
    assert found["report"]["rows"] == found["base"]["rows"] == 8
    before = out.read_bytes()
    assert "exists already" in blames(zolite("eval", "run", "--data", data, "--out", out))[0]
    assert "there is no folder" in blames(zolite("eval", "run", "--data", data, "--out", out / "x" / "y"))[0]
    assert out.read_bytes() == before
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    plain.write_text('{"text": "a long way down"}\n' * 2)
    error, _ = blames(zolite("eval", "no/model", "--data", plain, "--out", other))
    assert "are plain text" in error and not other.exists()


def test_debug_shows_the_traceback(zolite: Zolite, words: Words, tmp_path: Path) -> None:
    """With --debug an error is raised as it is, for who mends zolite."""
    with pytest.raises(sessions.UsageError, match="is no file"):
        zolite("--debug", *words(data=tmp_path / "nowhere"))


# Processes


def started(*arguments: object) -> subprocess.Popen[str]:
    """zolite in a process of its own."""
    command = [*ENTRY, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_step(child: subprocess.Popen[str], steps: int) -> list[Event]:
    """The events of a run with --json until so many steps are done."""
    assert child.stdout is not None
    seen: list[Event] = []
    for line in child.stdout:
        seen.append(events.from_json(line))
        if sum(isinstance(e, StepDone) for e in seen) >= steps:
            return seen
    raise AssertionError(f"it ended early: {child.communicate()[1]}")


def rest(child: subprocess.Popen[str]) -> tuple[list[Event], str]:
    """The other events of a run, and what it wrote on stderr."""
    # communicate() would read past what the iteration has buffered; stderr is too short to fill its pipe.
    assert child.stdout is not None and child.stderr is not None
    out, err = child.stdout.read(), child.stderr.read()
    child.wait(timeout=600)
    return [events.from_json(line) for line in out.splitlines()], err  # stdout is events and nothing else


def theta(name: str) -> tuple[int, dict[str, torch.Tensor]]:
    with sessions.open_(name) as session:
        return factors_at(session)


def test_ctrl_c_saves_and_resume_finishes_the_same_run(
    zolite: Zolite, words: Words, folder: Callable[..., Path]
) -> None:
    """Interrupted in a process of its own and resumed in another, a run has the bits of one straight through."""
    data = folder()
    train = words(data=data, steps=300, quant="int8")
    child = started(*train, "--name", "stopped", "--json")
    seen = until_step(child, 1)
    child.send_signal(signal.SIGINT)
    more, err = rest(child)
    seen += more
    assert child.returncode == 130, err
    assert {type(e) for e in seen} >= {Started, Evaluated, StepDone, Saved, Finished}
    end = seen[-1]
    assert isinstance(end, Finished) and end.reason == "interrupted" and 0 < end.step < 300
    assert f"stopped at step {end.step}; `zolite resume stopped` goes on" in err
    assert "{" not in err and "Traceback" not in err
    with sessions.open_("stopped") as session:
        newest, problems = session.newest()
        assert newest is not None and newest.step == end.step == session.journal.last_step() and not problems
    resumed = zolite("resume", "stopped", "--json")
    assert resumed.code == 0 and not [e for e in resumed.events if isinstance(e, Noted)]
    assert zolite(*train, "--name", "straight").code == 0
    (step, found), (_, wanted) = theta("stopped"), theta("straight")
    assert step == 300
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_two_ctrl_cs_leave_at_once(zolite: Zolite, words: Words) -> None:
    """The second does not wait for the step; every step that was said is in the journal, and a resume works."""
    slow = ["--set", "train.queries=200", "--set", "train.copies=1", "--set", "train.save_every=1000"]
    child = started(*words(steps=100, name="left"), *slow, "--json")
    seen = until_step(child, 2)
    assert child.stderr is not None
    child.send_signal(signal.SIGINT)
    assert "again exits" in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    more, err = rest(child)
    assert child.returncode == 130
    assert "Traceback" not in err and "stopped at step" not in err  # it did not wait for that
    seen += more
    assert not any(isinstance(e, Finished) for e in seen)
    last = max(e.step for e in seen if isinstance(e, StepDone))
    with sessions.open_("left") as session:
        assert [row.step for row in session.journal.steps()] == list(range(1, session.journal.last_step() + 1))
        assert last <= session.journal.last_step() <= last + 1
        assert session.steps() == [0]
    (row,) = zolite("sessions", "list", "--json").document
    assert row["status"] == "stopped"
    step, found = theta("left")
    assert step >= last and any(t.abs().max() > 0 for n, t in found.items() if n.endswith(".b"))


def test_a_process_ends_with_the_code_of_its_error(words: Words, tmp_path: Path) -> None:
    """What main() decides is the exit status of the program, and nothing goes to stdout."""
    child = started(*words(data=tmp_path / "nowhere"))
    out, err = child.communicate(timeout=600)
    blames(Ended(child.returncode, out, err))
    assert out.startswith("importing PyTorch …\n") and "error" not in out


def waited(name: str, seconds: float = 600) -> str:
    """How a run that nobody holds on to ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if sessions.exists(name):
            with sessions.open_(name) as session:
                if not session.running() and session.ending() != "stopped":
                    return session.ending()
        time.sleep(0.1)
    raise AssertionError(f"{name} does not end")


def test_a_closed_terminal_leaves_the_run_going(words: Words) -> None:
    """Without its terminal (SIGHUP) and with nobody reading what it says, a run goes on to its last step."""
    child = started(*words(steps=200, name="alone"), "--json")
    until_step(child, 1)
    child.send_signal(signal.SIGHUP)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    child.stderr.close()
    assert waited("alone") == "done"
    assert child.wait(timeout=600) == 0


def test_a_reader_that_goes_away_leaves_the_run_going(words: Words) -> None:
    """As in `zolite train … --json | head`: a pipe that breaks is no reason to end."""
    child = started(*words(steps=200, name="alone"), "--json")
    until_step(child, 1)
    assert child.stdout is not None
    child.stdout.close()
    assert waited("alone") == "done"
    child.communicate(timeout=600)
    assert child.returncode == 0


def test_a_detached_run_is_watched_and_told(zolite: Zolite, words: Words, home: Path) -> None:
    """It says its name and leaves; the run can be watched, paused, let go on and stopped; its log is its owner's."""
    child = started(*words(steps=100_000, name="far", quant="float32"), "--detach", "--json")
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0 and json.loads(out) == {"session": "far"}, err
    assert zolite("sessions", "list", "--json").document[0]["status"] == "running"
    for verb, kind in (("pause", Paused), ("continue", Continued), ("stop", Finished)):
        assert zolite("sessions", verb, "far").code == 0
        seen = started("watch", "far", "--json")
        assert seen.stdout is not None
        assert any(isinstance(events.from_json(line), kind) for line in seen.stdout)
        seen.kill()
        seen.communicate()
    assert waited("far") == "interrupted"
    shown = zolite("watch", "far", "--plain")
    assert shown.code == 0 and "paused" in shown.out and "stopped after" in shown.out
    log = home / "sessions" / "far" / "trainer.log"
    assert log.stat().st_mode & 0o777 == 0o600 and "Traceback" not in log.read_text()


def test_a_detached_run_that_cannot_start_says_why(words: Words, home: Path, tmp_path: Path) -> None:
    """The error of the process behind is this one's, with its code, and nothing stays."""
    child = started(*words(data=tmp_path / "nowhere"), "--detach")
    out, err = child.communicate(timeout=600)
    said, _, _ = err.partition("error: ")
    message, _ = blames(Ended(child.returncode, out, err.removeprefix(said)))
    assert "nowhere" in message and out == "" and said.startswith("importing PyTorch …\n")
    assert os.listdir(home / "sessions") == []


# Sessions


def test_sessions_are_managed(zolite: Zolite, words: Words) -> None:
    """Rewound, forked, verified, renamed, pruned and removed, with what was done said in words and as JSON."""
    assert zolite(*words(steps=4, name="first")).code == 0
    assert zolite("sessions", "verify", "first").code == 0
    assert zolite("sessions", "fork", "first", "second", "--at", "2", "--json").document == {
        "session": "second",
        "from": "first",
        "step": 2,
    }
    said, hint = blames(zolite("sessions", "rewind", "first", "--to", "3"))
    assert "removes 1 of 4 steps (4), 1 checkpoint (4)" in said
    assert "--yes" in hint and "`zolite sessions fork first --at 3`" in hint
    assert zolite("sessions", "rewind", "first", "--to", "3", "--yes", "--json").document["taken_back"] == 1
    assert zolite("sessions", "rename", "second", "third").code == 0
    kept = zolite("sessions", "show", "first", "--json").document["checkpoints"]
    assert zolite("sessions", "prune", "first", "--json").document["freed_bytes"] > 0
    assert {0, 3} <= set(zolite("sessions", "show", "first", "--json").document["checkpoints"]) < set(kept)
    assert zolite("sessions", "rm", "third", "--yes").code == 0
    assert [row["name"] for row in zolite("sessions", "list", "--json").document] == ["first"]
    assert zolite("resume", "first").code == 0
    blames(zolite("sessions", "rewind", "first", "--to", "9"))
    blames(zolite("sessions", "pause", "first"))
    blames(zolite("watch", "third"))


def test_a_run_is_recorded_and_replayed(zolite: Zolite, words: Words, tmp_path: Path) -> None:
    """Replayed, a recording says what `watch` says of the session; it replaces no file, and no other file is one."""
    assert zolite(*words(steps=4, name="first")).code == 0
    assert "4 steps" in zolite("sessions", "record", "first", tmp_path / "run.jsonl").out
    watched, replayed = (zolite(*w, "--json").events for w in (("watch", "first"), ("replay", tmp_path / "run.jsonl")))
    kept, again = (
        [e for e in each if not isinstance(e, Saved | Concluded)] for each in (watched, replayed)
    )  # no paths
    assert kept == again and isinstance(watched[-1], Concluded) and isinstance(replayed[-1], Concluded)
    assert "step 4  done after" in zolite("replay", tmp_path / "run.jsonl", "--plain").out
    blames(zolite("sessions", "record", "first", tmp_path / "run.jsonl"))
    (tmp_path / "other").write_text("{}")
    blames(zolite("replay", tmp_path / "other"))


def test_a_session_is_talked_to(
    zolite: Zolite, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt on stdin, both answers as JSON; a step that is not there is refused before the model is loaded."""
    assert zolite(*words(steps=2, name="first")).code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"prompt": "ox"}\n'))
    said = [json.loads(line) for line in zolite("chat", "first", "--json").out.splitlines()]
    assert said[0].items() >= {"event": "ready", "session": "first", "step": 2, "columns": ["text"]}.items()
    assert said[-1]["event"] == "answer" and said[-1]["label"].keys() == {"base", "tuned"}
    monkeypatch.setattr(sys, "stdin", io.StringIO("ox\n"))
    *_, base, ranked, tuned, also = zolite("chat", "first", "--verbose").out.splitlines()
    assert base.startswith("base ") and tuned.startswith("tuned ")
    assert all("yes" in line and "no" in line and "%" in line for line in (ranked, also))
    assert "step 9" in blames(zolite("chat", "first", "--step", "9"))[0]
    assert "system message" in blames(zolite("chat", "first", "--system", "Be brief."))[0]


def test_a_damaged_session_fails_its_verification(zolite: Zolite, words: Words, home: Path) -> None:
    """The error counts what is wrong and names the step to go back to."""
    assert zolite(*words(steps=4, name="first")).code == 0
    damaged = home / "sessions" / "first" / "checkpoints" / "000003" / "state.json"
    damaged.write_text(damaged.read_text() + " ")
    message, hint = blames(zolite("sessions", "verify", "first"), code=1)
    assert "1 of" in message and "--to 2" in hint
