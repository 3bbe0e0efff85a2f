"""Which files are meant by a path, and which of them are train, dev and test."""

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zolite.common.errors import UsageError
from zolite.data import hub
from zolite.data.problems import refuse, some
from zolite.data.readers.registry import READERS, stem_of, suffix_of, unsupported
from zolite.data.split_names import NAMES, SPLITS, split_in

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")  # as the hub names the parts of a split
DOCUMENTS = (".txt", ".md")  # which lie beside tables without being rows
UNLABELLED = "unsup"  # a folder of IMDB's train beside those of labels
# What lies beside data in repositories, by its name without extension.
ABOUT = re.compile(
    r"(readme|licen[sc]e|copying|notice|changelog|citation|contributing|dataset_(info|infos|dict)|state|config|metadata|"
    r"requirements|package|croissant)",
    re.I,
)
FORMATS = f"files of rows are {', '.join(READERS)}, each also as .gz or .zst"


@dataclass(frozen=True)
class Sources:
    files: dict[str, tuple[Path, ...]]
    """split to its files, whose rows follow each other, in the order of SPLITS"""
    notes: tuple[str, ...] = ()
    """what a person should know of the choice"""
    labelled: bool = False
    """is each file a document whose folder's name is its label?"""


def find(spec: str) -> dict[str, tuple[Path, ...]]:
    """The files of `look`."""
    return look(spec).files


def look(spec: str) -> Sources:
    """What is meant by a file, a folder, a pattern such as part-*.jsonl, several of these with commas between, or
    hf:NAME[:CONFIG][:SPLIT]. One file alone counts as train. UsageError with all that is wrong."""
    if hub.is_meant(spec):
        return Sources(*hub.look(spec))
    path = Path(spec).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _given([path])
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if len(parts) > 1 or glob.has_magic(spec):
        return _given([file for part in parts for file in _matching(part)])
    what = "is a link that leads nowhere" if path.is_symlink() else "is no file and no folder"
    raise UsageError(f"data {path} {what}", f"give a folder with train.jsonl or train.csv, or a file; {FORMATS}")


def absolute(spec: str) -> str:
    """The same files from any working directory."""
    if hub.is_meant(spec):
        return spec
    path = os.path.expanduser(spec)
    if os.path.lexists(path) or not ("," in spec or glob.has_magic(spec)):
        return os.path.realpath(path)
    return ",".join(os.path.abspath(os.path.expanduser(part.strip())) for part in spec.split(",") if part.strip())


def demand(spec: str, files: Mapping[str, tuple[Path, ...]], required: Iterable[str]) -> None:
    """Raises UsageError with the required splits that have no file."""
    missing = [split for split in SPLITS if split in required and split not in files]
    if missing:
        path = Path(spec).expanduser()
        inside = path.iterdir() if path.is_dir() else (file for found in files.values() for file in found)
        raise UsageError(
            f"data {spec} has no {' and no '.join(missing)} file (it has {some(sorted(f.name for f in inside))})",
            f"give a folder with {' and '.join(f'{split}.jsonl or {split}.csv' for split in missing)}",
        )


def named(files: Sequence[Path]) -> str:
    """A split's files in a few words."""
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


# ---- files that were named


def _matching(part: str) -> list[Path]:
    path = Path(part).expanduser()
    if path.exists() or not glob.has_magic(part):
        return [path]
    return sorted(
        (Path(name) for name in glob.glob(str(path), recursive=True) if os.path.isfile(name)), key=_natural
    ) or [path]


def _given(files: Sequence[Path]) -> Sources:
    """Each by its name, train where that says nothing; all of them train where that leaves one split alone."""
    missing = [f"{file}: no such file" for file in files if not file.exists()]
    missing += [f"{file}: a folder among files" for file in files if file.is_dir()]
    refuse(missing, "give a folder alone, files with commas between, or a pattern in quotes such as 'part-*.jsonl'")
    refuse([f"{file.name}: {why}" for file in files if (why := unsupported(file))], FORMATS)
    found: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        found.setdefault(split_in(stem_of(file)) or "train", []).append(file)
    if len(found) == 1:
        found = {"train": next(iter(found.values()))}
    return _sources(found)


def _sources(found: Mapping[str, Sequence[Path]], notes: Sequence[str] = ()) -> Sources:
    joined = [
        f"{split}: {len(found[split])} files, one behind the other: {some((f.name for f in found[split]), 4)}"
        for split in SPLITS
        if len(found.get(split, ())) > 1
    ]
    return Sources({split: tuple(found[split]) for split in SPLITS if found.get(split)}, (*joined, *notes))


# ---- a folder


def _folder(path: Path, nested: bool = False) -> Sources:
    if labelled := _labelled(path):
        return labelled
    everything = sorted((file for file in path.iterdir() if _may_be_data(file)), key=_natural)
    files = _tables([file for file in everything if file.is_file()])
    folders = [file for file in everything if file.is_dir()]
    assigned = _by_exact_name(files, folders)
    if "train" not in assigned:  # beside train.csv, old_test.csv is no split
        assigned = _by_words(files) | assigned or _unnamed(files)
    if assigned:
        return _checked(path, assigned, files)
    inner = [folder for folder in folders if _has_data(folder)]
    inner = [folder for folder in inner if folder.name == "data"] or inner
    if len(inner) == 1 and not nested:
        return _folder(inner[0], nested=True)
    if inner:
        raise UsageError(f"data {path} has {len(inner)} folders of rows", f"name one of them, such as {inner[0]}")
    refuse([f"{file.name}: {why}" for file in everything if file.is_file() and (why := unsupported(file))], FORMATS)
    raise UsageError(
        f"data {path} has no file of rows (it has {some(f.name for f in everything) or 'nothing'})", FORMATS
    )


def _labelled(path: Path) -> Sources | None:
    """Folders of documents, one for each label, as they are or in folders of splits; None where there are none."""
    inside = [folder for folder in path.iterdir() if folder.is_dir() and _may_be_data(folder)]
    splits = {split: folder for folder in inside if (split := NAMES.get(folder.name.lower()))}
    places = splits if splits else {"train": path}
    found = {split: _label_folders(folder, apart=bool(splits)) for split, folder in places.items()}
    if not all(found.values()):
        return None
    labels = sorted({folder.name for folders in found.values() for folder in folders})
    files = {
        split: tuple(file for folder in found[split] for file in sorted(_documents(folder), key=_natural))
        for split in SPLITS
        if split in found
    }
    return Sources(files, (f"labels: the names of the folders {some(labels)}",), labelled=True)


def _label_folders(path: Path, apart: bool) -> list[Path]:
    """Where there are several, and nothing but documents in each; `apart`: whatever lies beside them."""
    folders = sorted(
        each for each in path.iterdir() if each.is_dir() and _may_be_data(each) and each.name != UNLABELLED
    )
    beside = not apart and _has_data(path)
    whole = all(_documents(each) and not any(file.is_dir() for file in each.iterdir()) for each in folders)
    return folders if len(folders) > 1 and whole and not beside else []


def _documents(folder: Path) -> list[Path]:
    """All of its files, where they are documents."""
    files = [file for file in folder.iterdir() if file.is_file() and _may_be_data(file)]
    return files if all(suffix_of(file) in DOCUMENTS for file in files) else []


def _may_be_data(file: Path) -> bool:
    return not file.name.startswith((".", "_")) and not ABOUT.fullmatch(stem_of(file))


def _has_data(folder: Path) -> bool:
    return any(_may_be_data(file) and file.is_file() and suffix_of(file) in READERS for file in folder.iterdir())


def _tables(files: Sequence[Path]) -> list[Path]:
    """Without documents, unless there is nothing else to read."""
    tables = [file for file in files if suffix_of(file) not in DOCUMENTS]
    return tables if any(not unsupported(file) for file in tables) else list(files)


def _by_exact_name(files: Sequence[Path], folders: Sequence[Path]) -> dict[str, list[Path]]:
    """train.csv, validation-00000-of-00002.parquet, and all that lies in a folder of that name."""
    found: dict[str, list[Path]] = {}
    for file in files:
        shard = SHARD.fullmatch(stem_of(file))
        if split := NAMES.get((shard[1] if shard else stem_of(file)).lower()):
            found.setdefault(split, []).append(file)
    for folder in folders:
        if split := NAMES.get(folder.name.lower()):
            inside = sorted((file for file in folder.iterdir() if _may_be_data(file) and file.is_file()), key=_natural)
            found.setdefault(split, []).extend(file for file in _tables(inside) if not unsupported(file))
    return {split: some_ for split, some_ in found.items() if some_}


def _by_words(files: Sequence[Path]) -> dict[str, list[Path]]:
    """sst2_train.csv, train-part1.csv."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if (split := split_in(stem_of(file))) and not unsupported(file):
            found.setdefault(split, []).append(file)
    return found


def _unnamed(files: Sequence[Path]) -> dict[str, list[Path]]:
    readable = [file for file in files if not unsupported(file)]
    return {"train": readable} if readable else {}


def _checked(path: Path, assigned: dict[str, list[Path]], files: Sequence[Path]) -> Sources:
    """Raises UsageError where a split has files that do not belong together."""
    problems, found = [], {}
    for split, several in assigned.items():
        readable = [file for file in several if not unsupported(file)]
        found[split] = readable
        problems += [] if readable else [f"{file.name}: {unsupported(file)}" for file in several]
        problems += _apart(path, split, readable)
    refuse(problems, f"name the files that are meant, with commas between; {FORMATS}")
    taken = {file for several in assigned.values() for file in several}
    others = [file.name for file in files if file not in taken and not unsupported(file)]
    return _sources(found, [f"files that are not read: {some(others)}"] if others else ())


def _apart(path: Path, split: str, files: Sequence[Path]) -> list[str]:
    """What is wrong with a split's files, where they are not parts of one."""
    names = [stem_of(file) for file in files]
    shards = [shard for name in names if (shard := SHARD.fullmatch(name))]
    if shards and len(shards) == len(files):
        (whole,) = {int(shard[3]) for shard in shards} if len({shard[3] for shard in shards}) == 1 else {0}
        there = {int(shard[2]) for shard in shards}
        missing = [f"{number:05}" for number in range(whole) if number not in there]
        return [f"{split}: part {some(missing)} of {whole:05} is missing"] if missing else []
    parts = len({re.sub(r"\d+", "0", file.name) for file in files}) <= 1
    others = split == "train" and len({suffix_of(file) for file in files}) == 1 and not any(map(split_in, names))
    in_folder = all(file.parent != path for file in files)
    return [] if parts or others or in_folder else [f"{split}: {len(files)} files ({some(f.name for f in files)})"]


def _natural(file: Path) -> list[tuple[int, str]]:
    """The order of names in which part-2 comes before part-10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", str(file))]
