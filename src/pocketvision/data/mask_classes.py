"""Which value of a mask means which class: the files that say so beside the masks."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError
from .layouts import label_name
from .masks import Legend

_VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled"}
_MOST = 255  # classes: a byte less the void


def read_legend(folders: Iterable[Path]) -> Legend | None:
    """What the first class file in one of ``folders`` says; None where there is none.

    ``class_dict.csv`` (name, r, g, b), ``labelmap.txt`` (name:r,g,b::), ``classes.json`` (a list of names, also below
    "classes", then perhaps with "ignore_index"; or names and values), ``classes.txt``, ``class_names.txt`` or
    ``labels.txt`` (a name a line, from 0). Raises DataError for a damaged one.
    """
    readers = {
        "class_dict.csv": _from_csv,
        "labelmap.txt": _from_labelmap,
        "classes.json": _from_json,
        "classes.txt": _from_lines,
        "class_names.txt": _from_lines,
        "labels.txt": _from_lines,
    }
    for folder in dict.fromkeys(folders):
        for name, read in readers.items():
            if (path := folder / name).is_file():
                try:
                    pairs, colours, void = read(path.read_text(encoding="utf-8-sig"))
                except UnicodeDecodeError:
                    raise DataError(f"{path}: not UTF-8 text; save it in UTF-8") from None
                except (ValueError, LookupError, TypeError) as error:
                    raise DataError(f"{path}: no classes can be read ({error}); see docs/data.md#masks") from error
                return _legend(path, pairs, colours, void)
    return None


_Read = tuple[list[tuple[str, int]], bool, set[int]]  # names and values, whether these are colours, values of void


def _legend(path: Path, pairs: list[tuple[str, int]], colours: bool, void: set[int]) -> Legend:
    named = [(label_name(name.strip(), str(path)), value) for name, value in pairs]
    empty = void | {value for name, value in named if name.strip("_").lower() in _VOID_NAMES}
    kept = [(name, value) for name, value in named if value not in empty]
    for what, column in (("name", Counter(name for name, _ in kept)), ("value", Counter(value for _, value in kept))):
        if twice := [str(entry) for entry, count in column.items() if count > 1]:
            raise DataError(f"{path}: two classes have the {what} {twice[0]!r}; give each its own")
    if not 2 <= len(kept) <= _MOST:
        raise DataError(f"{path}: names {len(kept)} classes; masks have 2 to {_MOST}, background is one of them")
    names, values = zip(*kept, strict=True)
    return Legend(f"classes by {path.name}", names, values, frozenset(empty), colours)


def colour(red: int, green: int, blue: int) -> int:
    """A colour as one number. Raises ValueError for what is none."""
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"the colour {red},{green},{blue} is outside 0 to 255")
    return red << 16 | green << 8 | blue


def shown_colour(value: int) -> str:
    """A colour as a person writes it: 128,0,64."""
    return f"{value >> 16},{value >> 8 & 255},{value & 255}"


def _from_csv(text: str) -> _Read:
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    if rows and not rows[0][1:2][0].strip().isdecimal():
        rows = rows[1:]  # the names of the columns
    return [(row[0], colour(*(int(cell) for cell in row[1:4]))) for row in rows], True, set()


def _from_labelmap(text: str) -> _Read:
    lines = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line[0], colour(*(int(part) for part in line[1].split(",")))) for line in lines], True, set()


def _from_lines(text: str) -> _Read:
    names = [line.strip() for line in text.splitlines() if line.strip()]
    start = -1 if names and re.fullmatch("_+ignored?_+", names[0]) else 0  # labelme's __ignore__ is -1
    return [(name, start + number) for number, name in enumerate(names)], False, set()


def _from_json(text: str) -> _Read:
    data: Any = json.loads(text)
    void = set[int]()
    if isinstance(data, dict) and "classes" in data:
        void = {int(data[name]) for name in ("ignore_index", "ignore", "void") if isinstance(data.get(name), int)}
        data = data["classes"]
    if isinstance(data, dict):  # value -> name, or name -> value
        pairs = [(str(b), int(a)) if isinstance(b, str) else (str(a), int(b)) for a, b in data.items()]
    else:
        pairs = [(_text(name), number) for number, name in enumerate(data)]
    return pairs, False, void


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a class")
    return name
