"""Read a folder of cluster files: one YAML file per cluster over a common defaults.yaml.

Everything wrong is reported with file, field (dotted path), value and the closest valid key. A bad file never
takes the others down: it becomes a `ClusterError` in their midst. Only local files are read; no environment
variable is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from include.scorecard_backfill.config import ClusterConfig

CLUSTERS_FOLDER = Path(__file__).parents[1] / "clusters"
"""The clusters that ship with the package."""
DEFAULTS_FILE = "defaults.yaml"

_SECRET_WORDS = ("password", "passwd", "secret", "token", "api_key", "apikey", "private_key", "credential")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_LONGEST_VALUE = 80
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True)
class ClusterError:
    """A cluster file that cannot be used.

    Attributes:
        file: the file to look into first; a line of `message` names defaults.yaml where the fault is there.
        name: the cluster it was to be, from the file's name.
        message: one line for each problem, each with file and field.
    """

    file: Path
    name: str
    message: str

    def __str__(self) -> str:
        return self.message


class ConfigFileError(ValueError):
    """A file that is no usable YAML mapping; `problems` are sentences that name file and field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ClusterFolder:
    """The cluster files of a folder; each is read once, when it is asked for.

    A field is taken from `<name>.yaml`, else from defaults.yaml (which may be missing), else from the model;
    mappings are merged key by key, lists are replaced.

    Raises:
        FileNotFoundError: `folder` is not a folder, or holds no cluster file.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of cluster files; give one that holds <cluster>.yaml")
        self._folder = folder
        self._read: dict[Path, ClusterConfig | ClusterError] = {}
        self._files = sorted(
            (path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"} and path.name != DEFAULTS_FILE),
            key=lambda path: (path.stem, path.name),
        )
        if not self._files:
            raise FileNotFoundError(f"{folder}: no cluster file in it; add one as <cluster>.yaml")

    def all(self) -> tuple[ClusterConfig | ClusterError, ...]:
        """Every cluster file, good or bad, sorted by name."""
        return tuple(self._one(path) for path in self._files)

    def named(self, name: str) -> tuple[ClusterConfig | ClusterError, ...]:
        """What is in the files of one cluster: one item, none, or two when a file of another ending is beside it."""
        return tuple(self._one(path) for path in self._files if path.stem == name)

    def _one(self, path: Path) -> ClusterConfig | ClusterError:
        if path not in self._read:
            found = self._defaults
            self._read[path] = (
                ClusterError(self._folder / DEFAULTS_FILE, path.stem, found)
                if isinstance(found, str)
                else _load_one(path, found)
            )
        return self._read[path]

    @cached_property
    def _defaults(self) -> dict[str, Any] | str:
        """What is in defaults.yaml, or the text of what is wrong with it."""
        path = self._folder / DEFAULTS_FILE
        try:
            return read_mapping(path) if path.exists() else {}
        except ConfigFileError as error:
            return str(error)


def load_clusters(folder: Path) -> tuple[ClusterConfig | ClusterError, ...]:
    """Every cluster file of `folder`, good or bad, sorted by name (see :class:`ClusterFolder`).

    Raises:
        FileNotFoundError: `folder` is not a folder, or holds no cluster file.
    """
    return ClusterFolder(folder).all()


def read_mapping(path: Path) -> dict[str, Any]:
    """One YAML file as a mapping without duplicate keys, aliases or secrets.

    Raises:
        ConfigFileError: not readable, no YAML, no mapping, or something in it that is not allowed.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigFileError([f"{path.name}: holds no mapping at its top; write fields as `name: value`."])
        problems = list(_node_problems(node, (), set(), path.name))
        if problems:
            raise ConfigFileError(problems)
        loaded = yaml.SafeLoader("").construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFileError([f"{path.name}: cannot be read: {error}."]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigFileError):
            raise
        raise ConfigFileError([f"{path.name}: is not valid YAML: {_yaml_text(error)}."]) from error
    return {str(key): value for key, value in loaded.items()}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`: mappings are merged key by key, everything else is replaced.

    >>> merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": []})
    {'a': {'b': 3, 'c': 2}, 'd': []}
    """
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(before, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


def _load_one(path: Path, defaults: Mapping[str, Any]) -> ClusterConfig | ClusterError:
    try:
        own = read_mapping(path)
        problems = _name_problems(path, own)
        if problems:
            raise ConfigFileError(problems)
        return ClusterConfig.model_validate(merge(defaults, own))
    except ConfigFileError as error:
        return ClusterError(path, path.stem, str(error))
    except ValidationError as error:
        lines = [_sentence(dict(problem), path, own) for problem in error.errors(include_url=False)]
        return ClusterError(path, path.stem, "\n".join(lines))


def _name_problems(path: Path, own: Mapping[str, Any]) -> list[str]:
    if path.suffix != ".yaml":
        return [f"{path.name}: the ending is {path.suffix!r}; rename it to {path.stem}.yaml."]
    if "name" not in own:
        return [f"{path.name}: name is missing; add `name: {path.stem}`."]
    if own["name"] != path.stem:
        return [f"{path.name}: name is {own['name']!r}, the file says {path.stem!r}; make them the same."]
    return []


def _node_problems(node: yaml.Node, at: tuple[str, ...], seen: set[int], file: str) -> Iterator[str]:
    """What YAML allows and a configuration should not hold, with its dotted path and line."""
    where = f"{file}: {_dotted(at) or 'top'} (line {node.start_mark.line + 1})"
    if id(node) in seen:
        yield f"{where}: is an alias (*name); write the value out."
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield from _mapping_problems(node, at, seen, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _node_problems(item, (*at, str(index)), seen, file)
    elif _URL_WITH_PASSWORD.search(node.value):
        yield f"{where}: holds a URL with a password; {_secret_hint(at)}"
    elif node.tag.endswith((":int", ":float")) and (":" in node.value or re.match(r"[-+]?0[0-9]", node.value)):
        # YAML 1.1 reads 1:30 as 90 and 010 as 8.
        yield f"{where}: {node.value} is not read as it looks; write a plain decimal number, or quote a text."


def _mapping_problems(node: yaml.MappingNode, at: tuple[str, ...], seen: set[int], file: str) -> Iterator[str]:
    first_lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.endswith(":str"):
            yield f"{file}: {_dotted(at) or 'top'} (line {line}): has a key that is not plain text; quote it."
            continue
        key = key_node.value
        path = (*at, key)
        if key in first_lines:
            yield (
                f"{file}: {_dotted(path)} (line {line}): is there twice, first in line {first_lines[key]}; "
                "keep one of them."
            )
        first_lines.setdefault(key, line)
        if _is_secret(key):
            yield f"{file}: {_dotted(path)} (line {line}): looks like a secret; {_secret_hint(path)}"
        else:
            yield from _node_problems(value_node, path, seen, file)


def _is_secret(key: str) -> bool:
    plain = key.lower().replace("-", "_")
    return any(word in plain for word in _SECRET_WORDS) or bool(
        get_close_matches(plain, _SECRET_WORDS, n=1, cutoff=0.85)
    )


def _secret_hint(at: tuple[str, ...]) -> str:
    section = at[0] if at and at[0] in {"clickhouse", "kubernetes", "temporal"} else ""
    which = f"the Airflow connection of {section}.conn_id" if section else "an Airflow connection (conn_id)"
    return f"put it into {which} and remove it here. Its value is not shown."


def _sentence(problem: Mapping[str, Any], path: Path, own: Mapping[str, Any]) -> str:
    """One problem of pydantic as a sentence with file, field, value and what would be right."""
    at = tuple(str(part) for part in problem["loc"] if part != "[key]")
    file = path.name if _is_in(own, at) else DEFAULTS_FILE
    where = f"{file}: {_dotted(at) or 'top'}"
    shown = _shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key (value {shown}); {_closest_key(at)}"
    if problem["type"] == "missing":
        return f"{path.name}: {_dotted(at)}: is missing; add it."
    reason = problem["msg"].removeprefix("Value error, ").rstrip(".")
    reason = reason[:1].lower() + reason[1:]
    if isinstance(problem["input"], Mapping):
        return f"{where}: {reason}."
    return f"{where}: {shown}: {reason}."


def _is_in(own: Mapping[str, Any], at: tuple[str, ...]) -> bool:
    """False if the cluster's own file has nothing at this path: the value came from the defaults."""
    value: Any = own
    for part in at:
        if isinstance(value, list):
            return True
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _closest_key(at: tuple[str, ...]) -> str:
    valid = sorted(_model_at(at[:-1]).model_fields)
    close = get_close_matches(at[-1], valid, n=1)
    if close:
        return f"did you mean {_dotted((*at[:-1], close[0]))}?"
    elsewhere = [path for path in _all_paths(ClusterConfig, ()) if path[-1] == at[-1]]
    if elsewhere:
        return f"it belongs to {' or '.join(_dotted(path) for path in elsewhere)}."
    return f"valid here: {', '.join(valid)}."


def _model_at(at: tuple[str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = ClusterConfig
    for part in at:
        field = model.model_fields.get(part)
        nested = None if field is None else _nested_model(field.annotation)
        model = nested or model
    return model


def _all_paths(model: type[BaseModel], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*at, name)
        nested = _nested_model(field.annotation)
        if nested is not None:
            yield from _all_paths(nested, (*at, name))


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _nested_model(part)) is not None), None)


def _dotted(at: tuple[str, ...]) -> str:
    return ".".join(at)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _yaml_text(error: Exception) -> str:
    """Problem and line, without the excerpt of the file that PyYAML adds (it might hold a secret)."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return " ".join(str(error).split())
