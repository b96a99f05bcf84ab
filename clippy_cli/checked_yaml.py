"""From a YAML file to a checked pydantic model, or to every error at once with its line."""

from __future__ import annotations

import difflib
import json
import os
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.regular_files import read_text

Key = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)
_FORM = "write it as section.field=value, for example train.lr=3e-4"
MAX_BYTES = 4 << 20
MAX_VALUES = 1_000_000
AFTER_THE_FILE = 2**31  # where problems of overrides are sorted


FieldOverrides = Sequence[str] | Mapping[str, object]


def load_checked(path: Path, model: type[Model], *, what: str, overrides: FieldOverrides = ()) -> Model:
    """Read a YAML file, apply overrides, and check it; ``what`` is the file's name in errors.

    Overrides are texts ``key.sub=value``, whose values are read as YAML, or a mapping of ``key.sub`` to values that are
    taken as they are.

    Raises ClippyError that lists every problem with its line (or override), field, what is allowed and what was given.
    """
    document = _Document.read(path, what)
    if isinstance(overrides, Mapping):
        for field, value in overrides.items():
            document.put(field, value, f"{field}={value}")
    else:
        for override in overrides:
            document.override(override)
    checked = _validate(document, model)
    if checked is None:
        problems = [text for _, text in sorted(document.problems, key=lambda problem: problem[0])]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ClippyError(f"The {what} {path} has {count}:\n" + "\n".join(f"  {line}" for line in problems))
    return checked


class EncodableModel(BaseModel):
    """A model whose texts can be written to files: none with half a surrogate pair, which YAML's ``\\ud800`` makes."""

    @model_validator(mode="after")
    def _has_no_surrogates(self) -> Self:
        for name in type(self).model_fields:
            try:
                json.dumps(self.model_dump(include={name}), ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError as error:
                raise conflict(r"a text holds one of \ud800 to \udfff, which are no characters", name) from error
        return self


def conflict(message: str, *fields: str) -> PydanticCustomError:
    """An error between fields, which :func:`load_checked` reports at the first of them that was written."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "fields": fields})


def read_yaml(path: Path, what: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a YAML file and what they stand for; both None where it is empty.

    ClippyError where it is not YAML, nested too deeply, or large: more than ``MAX_BYTES`` as it stands, or more than
    ``MAX_VALUES`` values once each alias is read out.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ClippyError(f"The {what} {path} is larger than {MAX_BYTES >> 20} MiB.", "Check the path.")
        loader = yaml.SafeLoader(read_text(path))
        node = loader.get_single_node()
        if node is not None and _values(node, {}) > MAX_VALUES:
            raise ClippyError(
                f"{path}: its aliases (*name) stand for more than {MAX_VALUES:,} values, or for themselves.",
                "Write out what they stand for.",
            )
        return node, loader.construct_document(node) if node is not None else None
    except ClippyError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"The {what} {path} cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ClippyError(f"{where}: this is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ClippyError(f"{path}: this is not YAML: {error}") from error
    except RecursionError as error:
        raise ClippyError(f"{path}: the {what} is nested too deeply.") from error
    except Exception as error:  # of values that look like a date, a number or a set and are none
        raise ClippyError(f"{path}: the {what} holds a value that YAML cannot read: {first_line(error)}") from error


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases read out; more than the limit where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # meanwhile, for a node that comes across itself
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


class _Document:
    """The raw mapping, and for every key the place that it was written at."""

    def __init__(self, path: Path, data: dict[str, Any], lines: dict[Key, int]) -> None:
        self.path = path
        self.data = data
        self.lines = lines
        self.overrides: dict[Key, str] = {}
        self.problems: list[tuple[int, str]] = []

    @classmethod
    def read(cls, path: Path, what: str) -> _Document:
        node, data = read_yaml(path, what)
        if not isinstance(data, dict):
            raise ClippyError(
                f"The {what} {path} holds {_show(data)}, not fields.",
                "Write fields such as `name: value`, one a line.",
            )
        lines: dict[Key, int] = {}
        document = cls(path, data, lines)
        assert node is not None  # it gave a mapping
        for key, line, repeated in _walk(node, (), set()):
            lines[key] = line
            if repeated:
                document.report(key, "this field is given twice")
        return document

    def override(self, text: str) -> None:
        """Set one dotted field from ``key.sub=value``; the value is read as YAML."""
        field, equals, written = text.partition("=")
        if not equals:
            self._refuse(text, _FORM)
            return
        try:
            value = yaml.safe_load(written)
        except Exception as error:  # YAMLError, and what values lead to that look like a date or a number
            self._refuse(text, f"the value is not YAML: {first_line(error)}")
            return
        self.put(field.strip(), value, text)

    def put(self, field: str, value: object, text: str) -> None:
        """Set the dotted ``field``; ``text`` is how errors show the override. Paths become text."""
        key: Key = tuple(field.split("."))
        if not all(key):
            self._refuse(text, _FORM)
            return
        section: Any = self.data
        for depth, part in enumerate(key[:-1], start=1):
            if section.get(part) is None:
                section[part] = {}
                self.overrides[key[:depth]] = text
            section = section[part]
            if not isinstance(section, dict):
                self._refuse(text, f"{_dotted(key[:depth])} is a single value and has no field {key[depth]}")
                return
        section[key[-1]] = os.fspath(value) if isinstance(value, os.PathLike) else value
        self.lines = {known: line for known, line in self.lines.items() if known[: len(key)] != key}
        self.overrides[key] = text

    def _refuse(self, override: str, problem: str) -> None:
        self.problems.append((AFTER_THE_FILE, f"--set {override}: {problem}"))

    def written(self, key: Key) -> bool:
        return key in self.lines or key in self.overrides

    def report(self, key: Key, problem: str) -> None:
        """Add a problem at the place where ``key``, or the nearest section around it, was written."""
        line, place = 1, f"{self.path}:1"
        for length in range(len(key), 0, -1):
            if key[:length] in self.overrides:
                line, place = AFTER_THE_FILE, f"--set {self.overrides[key[:length]]}"
                break
            if key[:length] in self.lines:
                line = self.lines[key[:length]]
                place = f"{self.path}:{line}"
                break
        entry = (line, f"{place}  {_dotted(key)}: {problem}")
        if entry not in self.problems:
            self.problems.append(entry)


def _walk(node: yaml.Node, key: Key, seen: set[int]) -> Iterator[tuple[Key, int, bool]]:
    if id(node) in seen:  # an alias; following it could go on for ever
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for name, value in node.value:
            yield (*key, name.value), name.start_mark.line + 1, name.value in names
            names.add(name.value)
            yield from _walk(value, (*key, name.value), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*key, index), value.start_mark.line + 1, False
            yield from _walk(value, (*key, index), seen)


def _validate(document: _Document, model: type[Model]) -> Model | None:
    """Validate; put examples for what is wrong and validate again, so that checks between fields are reported too."""
    data, examples = document.data, dict[Key, Any]()
    while True:
        known = len(examples)
        try:
            checked = model.model_validate(data)
            return None if document.problems else checked
        except ValidationError as error:
            for item in error.errors(include_url=False):
                _report(document, model, item, data, examples)
        if len(examples) == known:
            return None
        data = _with_examples(document.data, examples)


def _report(
    document: _Document, model: type[BaseModel], item: Any, data: dict[str, Any], examples: dict[Key, Any]
) -> None:
    key = _key(item["loc"], data)
    if item["type"].startswith("union_tag"):
        key = (*key, "kind")
    if item["type"] == "conflict":
        fields: list[Key] = [tuple(field.split(".")) for field in item["ctx"]["fields"]]
        follows = any(known[: len(field)] == field for known in examples for field in fields)
        if not follows:  # from an error that is reported already
            key = next(filter(document.written, fields), fields[0])
            document.report(key, item["ctx"]["message"])
    elif key not in examples:
        fields_here = dict(fields_of(model, (), document.data))
        document.report(key, _explain(item, key, fields_here))
        examples[key] = (getattr(fields_here.get(key), "examples", None) or [None])[0]


def _with_examples(data: Any, examples: dict[Key, Any], key: Key = ()) -> Any:
    """A copy of ``data`` in which wrong or missing fields hold their example, or are left out where they have none."""
    if not isinstance(data, dict):
        return data
    here = {field[-1]: example for field, example in examples.items() if field[:-1] == key}
    kept = {name: _with_examples(value, examples, (*key, name)) for name, value in data.items() if name not in here}
    return kept | {name: example for name, example in here.items() if example is not None}


def _key(loc: tuple[str | int, ...], data: Any) -> Key:
    """Pydantic's location without the tags that it adds for the kinds of a union."""
    key: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and part not in data and part == data.get("kind"):
            continue
        key.append(part)
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
    return tuple(key)


def _explain(item: Any, key: Key, fields: dict[Key, FieldInfo]) -> str:
    """One sentence: what is wrong, what is allowed, what was given, and what the field means."""
    kind, context, given = item["type"], item.get("ctx", {}), f"given: {_show(item['input'])}"
    meaning = f" [{fields[key].description}]" if key in fields and fields[key].description else ""
    if kind == "extra_forbidden":
        return _unknown_field(key, fields)
    if kind in ("missing", "union_tag_not_found"):
        examples = fields[key].examples if key in fields else None
        return f"this field is required, for example {examples[0]}" if examples else f"this field is required{meaning}"
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        allowed = str(context.get("expected") or context["expected_tags"])
        given = str(context.get("tag", item["input"]))
        close = difflib.get_close_matches(given, allowed.replace("'", " ").replace(",", " ").split(), n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
        return f"must be {allowed}, given: {given}{guess}{meaning}"
    if kind in ("model_type", "model_attributes_type"):
        return f"must be a section with fields {', '.join(_names(key, fields))}, {given}"
    message = str(item["msg"]).replace("Input should", "must").replace("String should", "must")
    return f"{message[0].lower()}{message[1:]}, {given}{meaning}"


def _unknown_field(key: Key, fields: dict[Key, FieldInfo]) -> str:
    siblings = _names(key[:-1], fields)
    close = difflib.get_close_matches(str(key[-1]), siblings, n=1)
    if close:
        return f"unknown field; did you mean {_dotted((*key[:-1], close[0]))}?"
    elsewhere = [_dotted(field) for field in fields if field[-1] == key[-1]]
    if elsewhere:
        return f"unknown field; did you mean {' or '.join(elsewhere)}?"
    return f"unknown field; {_dotted(key[:-1]) or 'the file'} has {', '.join(siblings)}"


def _names(section: Key, fields: dict[Key, FieldInfo]) -> list[str]:
    return [str(field[-1]) for field in fields if field[:-1] == section]


def fields_of(model: type[BaseModel], prefix: Key, data: Any) -> Iterator[tuple[Key, FieldInfo]]:
    """Every field below ``model``; of a union's kinds, those of the one that ``data`` names."""
    for name, info in model.model_fields.items():
        key, value = (*prefix, name), data.get(name) if isinstance(data, dict) else None
        yield key, info
        sections = list(_sections(info.annotation))
        kind = value.get("kind") if isinstance(value, dict) else None
        for section in sections:
            if len(sections) == 1 or kind in _kinds(section):
                yield from fields_of(section, key, value)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _sections(argument)


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    return typing.get_args(section.model_fields["kind"].annotation)


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _show(value: Any) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)
