"""Classification sets laid out as one folder a class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, RootModel

from clippy_cli.checked_yaml import load_checked
from clippy_cli.data.benchmarks.base import BenchmarkClass, ClassificationSet, ClassifiedImage, SetInfo
from clippy_cli.data.benchmarks.spec import Prompts, SetSpec
from clippy_cli.data.image_files import LOOKED_FOR, is_hidden, is_image_name, is_system_folder, note_unread
from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError, encodable
from clippy_cli.notices import Notices, printable
from clippy_cli.own_files import MANIFEST

WORDS_FILE = "classes.yaml"
_WORDNET_ID = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r"\d+([._ -].*)?")
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "trainval"})


def _written_keys(words: object) -> object:
    """Folder names that YAML reads as numbers, such as ``0: cat``, as text."""
    if not isinstance(words, dict):
        return words
    return {str(key) if type(key) is int else key: value for key, value in words.items()}


class _Words(RootModel[Annotated[dict[str, Prompts], BeforeValidator(_written_keys)]]):
    """Folder name to the words that a model is asked for."""


def open_class_folders(name: str, spec: SetSpec | None, folder: Path) -> ClassFolders:
    """``folder``/CLASS/IMAGE, in the order of the names; a class is asked for by its folder's name.

    Folders that all are WordNet ids of ImageNet-1k mean that set's 1000 classes, all of which are asked for; with
    ``spec.vocabulary`` they must be those ids, or indices 0 to 999. ``spec.classes`` names folders and their words
    instead; with neither, ``_`` and ``-`` in a folder's name turn into spaces. What a file ``classes.yaml`` among the
    folders says goes before all that. ClippyError where there is no class folder, no image, or an unknown class.
    """
    notices = Notices()
    folders = _class_folders(folder, notices)
    if not folders:
        raise ClippyError(f"{folder}: holds no class folders", "Sort the images into one folder a class.")
    images = {name: _images(folder, name, notices) for name in folders}
    if not any(images.values()):
        unread = "".join(f"\n  {notice}" for notice in notices)
        splits = [name for name in folders if name.lower() in _SPLITS]
        raise ClippyError(
            f"{folder}: none of {len(folders)} class folders ({', '.join(folders[:3])}, ...) holds an image{unread}",
            f"Name one of its splits, such as {folder / splits[-1]}." if splits else LOOKED_FOR,
        )
    words = _words(spec, folder, _without_empty(folder, images, spec, notices), notices)
    order = {name: index for index, name in enumerate(words)}
    files = tuple(f"{name}/{file}" for name, names in images.items() for file in names)
    targets = [order[name] for name, names in images.items() for _ in names]
    title = f"{printable(folder.name)}, class folders"
    info = spec.info(name, folder) if spec else SetInfo(name, title, folder)
    opened = ClassFolders(info, folder, _classes(words), files, np.array(targets, np.int32))
    _note_odd_classes(words, spec, notices)
    opened.notices.update(notices)
    return opened


class ClassFolders(ClassificationSet):
    """Images in one folder per class."""

    def __init__(
        self,
        info: SetInfo,
        folder: Path,
        classes: tuple[BenchmarkClass, ...],
        files: tuple[str, ...],
        targets: NDArray[np.int32],
    ) -> None:
        self.info = info
        self.classes = classes
        self._folder = folder
        self._files = files
        self._targets = targets

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        return encodable(self._files[index])

    def path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self._folder / self._files[index]

    def files(self, index: int) -> tuple[Path, ...]:
        return (self.path(index),)

    def words(self, index: int) -> tuple[str, ...]:
        """What a model is asked for where it is to find the class of image ``index``."""
        return self.classes[int(self._targets[index])].prompts

    def read(self, index: int) -> ClassifiedImage:
        notices = Notices()
        image = read_image(self.path(index), notices=notices)
        return ClassifiedImage(self.key(index), image, int(self._targets[index]), tuple(notices))


def _class_folders(folder: Path, notices: Notices) -> list[str]:
    """Names of the folders in ``folder``, sorted, but for hidden ones and those of a system; images are skipped."""
    found = []
    for entry in _entries(folder):
        if _leads_to(entry.is_dir):
            if is_system_folder(entry.name):
                notices.ignored("folder", "of the system, no class", entry.name)
            elif (folder / entry.name / MANIFEST).is_file():
                notices.ignored("folder", "clippy's own results, no class", entry.name)
            elif not is_hidden(entry.name):
                found.append(entry.name)
        elif is_image_name(entry.name):
            notices.skipped("image", "in no class folder", entry.name, hint="Move it into the folder of its class.")
        elif entry.name != WORDS_FILE:
            note_unread(folder / entry.name, entry.name, notices)
    return found


def _images(folder: Path, name: str, notices: Notices) -> list[str]:
    """Names of the images in a class folder, sorted; what else lies there is counted."""
    found = []
    for entry in _entries(folder / name):
        shown = f"{name}/{entry.name}"
        if is_image_name(entry.name) and _leads_to(entry.is_file):
            found.append(entry.name)
        elif not _leads_to(entry.is_dir):
            note_unread(folder / name / entry.name, shown, notices)
        elif is_system_folder(entry.name):
            notices.ignored("folder", "of the system", shown)
        elif not is_hidden(entry.name) and _holds_images(folder / name / entry.name):
            hint = "Move its images up, into the folder of their class."
            notices.skipped("folder", "holds images, below a class folder", shown, hint=hint)
    return found


def _holds_images(folder: Path) -> bool:
    """Whether an image lies in a folder or, links not followed, anywhere below."""
    return any(is_image_name(name) for _, _, files in os.walk(folder) for name in files)


def _without_empty(
    folder: Path, images: Mapping[str, Sequence[str]], spec: SetSpec | None, notices: Notices
) -> list[str]:
    """The folders that are classes: those with images, and empty ones that are named as a class elsewhere."""
    named = {*_own_words(folder / WORDS_FILE), *(spec.classes if spec else ())}
    empty = [name for name, names in images.items() if not names and name not in named]
    if empty:
        hint = f"To ask for a class without images, name it in {WORDS_FILE} beside the folders."
        notices.assumed("folder", "without images, no class", *empty, hint=hint)
    return [name for name in images if name not in empty]


def _note_odd_classes(words: Mapping[str, Sequence[str]], spec: SetSpec | None, notices: Notices) -> None:
    """Note folders that may be no classes, and words that say nothing to a model or the same for two classes."""
    if spec is not None:
        return
    names, hint = list(words), f"Write what to ask for in {WORDS_FILE} beside the folders, as `folder: words`."
    if all(name.lower() in _SPLITS for name in names):
        notices.assumed(
            "folder", "named as a split, used as a class", *names, hint="Sort their images into one folder a class."
        )
    elif len(names) == 1:
        reason = "a single class, so there is nothing to tell apart"
        notices.assumed("folder", reason, *names, hint="Name the folder that holds one folder a class.")
    numbered = [name for name in names if _NUMBERED.fullmatch(name) and words[name] == (_plain_words(name, Notices()),)]
    if numbered and len(numbered) == len(names):
        notices.assumed("class", "numbers in folder names are part of what is asked for", *numbered, hint=hint)
    asked: dict[tuple[str, ...], list[str]] = {}
    for name, prompts in words.items():
        asked.setdefault(tuple(sorted(prompt.casefold() for prompt in prompts)), []).append(name)
    same = [name for alike in asked.values() if len(alike) > 1 for name in alike]
    if same and not all(map(_WORDNET_ID.fullmatch, same)):
        notices.assumed("class", "its words are those of another class", *same, hint=hint)


def _leads_to(kind: Callable[[], bool]) -> bool:
    """What an entry's ``is_dir`` or ``is_file`` says; False for a link that leads to itself."""
    try:
        return kind()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ClippyError(f"{folder}: cannot be read ({error})", "Check the folder and its permissions.") from error


def _words(spec: SetSpec | None, folder: Path, folders: Sequence[str], notices: Notices) -> dict[str, tuple[str, ...]]:
    """The words of every class, by the name that its folder has or would have, in the order of the class indices."""
    known = set(folders)
    own = _own_words(folder / WORDS_FILE)
    imagenet = spec is not None and spec.vocabulary == "imagenet"
    if spec and spec.classes:
        words = dict(spec.classes)
    elif imagenet or any(map(_WORDNET_ID.fullmatch, folders)):
        words = _imagenet(known)
        if not imagenet and not words.keys() >= known:
            words = {}  # ids of another set say nothing to a model; only the file can
    else:
        words = {name: (_plain_words(name, notices),) for name in folders}
    unknown = [name for name in own if name not in words.keys() | known]
    if unknown:
        raise ClippyError(
            f"{folder / WORDS_FILE}: {unknown[0]!r} is no class folder",
            f"Class folders are {', '.join(folders[:8])} and so on.",
        )
    words |= own
    strange = [name for name in folders if name not in words]
    if strange:
        expected = ", ".join(list(words)[:3]) or "names that say what is in the images"
        raise ClippyError(
            f"{folder}: {len(strange)} of {len(folders)} folders are no known class, such as {strange[0]!r}; "
            f"expected were {expected} and so on",
            f"Move them elsewhere, or write `folder: words` for each in {WORDS_FILE} beside them.",
        )
    return words


def _plain_words(name: str, notices: Notices) -> str:
    """What a model is asked for a folder's name; one that is not UTF-8 is read as Latin-1."""
    if encodable(name) != name:
        notices.assumed("class", "its folder's name is not UTF-8, read as Latin-1", name)
        name = os.fsencode(name).decode("latin-1")
    return " ".join(re.split(r"[\s_-]+", name)).strip() or name


def _own_words(path: Path) -> dict[str, tuple[str, ...]]:
    return load_checked(path, _Words, what="list of class words").root if os.path.lexists(path) else {}


def _imagenet(folders: set[str]) -> dict[str, tuple[str, ...]]:
    """The words of ImageNet-1k's classes by WordNet id, or by index where all folders are indices."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    # timm lists the ids of class 0 to 999, sorted as they are; open_clip names the classes in the same order.
    ids = ImageNetInfo().label_names()
    by_id: dict[str, tuple[str, ...]] = {wnid: (name,) for wnid, name in zip(ids, IMAGENET_CLASSNAMES, strict=True)}
    by_index = {str(index): words for index, words in enumerate(by_id.values())}
    return by_index if by_index.keys() >= folders else by_id


def _classes(words: Mapping[str, tuple[str, ...]]) -> tuple[BenchmarkClass, ...]:
    """Classes by their first word, followed by the folder's name where two share it (ImageNet: missile, sunglasses)."""
    times = Counter(prompts[0] for prompts in words.values())
    return tuple(
        BenchmarkClass(prompts[0] if times[prompts[0]] == 1 else f"{prompts[0]} ({folder})", prompts)
        for folder, prompts in words.items()
    )
