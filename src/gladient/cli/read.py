"""Setting files: JSON or YAML in which nothing is silently lost, and nothing small unfolds into something huge."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gladient.answers import number

if TYPE_CHECKING:
    from yaml.nodes import Node

__all__ = ["read_object"]

_DEPTH = 8  # a setting has depth 3: an object of lists of lists
_YAML_BYTES = 2**20  # eight seconds: PyYAML reads it twice, for aliases and depth, then for values


def read_object(path: Path) -> dict[str, Any]:
    """The one object in a JSON or YAML file, with numbers as `number` reads them.

    Raises:
        ValueError: if the file holds anything else, is nested too deeply, gives a key twice, or uses a YAML alias.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is a folder; give a JSON or YAML file")
    kind, read = ("YAML", _yaml) if path.suffix in (".yaml", ".yml") else ("JSON", _json)
    try:
        content = read(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; a setting is one object of numbers and lists") from None
    except ValueError as error:  # that of JSON and of UTF-8 too
        raise ValueError(f"cannot read {path} as {kind}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds {type(content).__name__}; it must be one object, like {{"n": [25, 25], …}}')
    return content


def _json(text: str) -> Any:
    return json.loads(text, parse_int=number, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice; leave one out")
        found[key] = value
    return found


def _yaml(text: str) -> Any:
    import yaml

    if len(text) > _YAML_BYTES:
        raise ValueError("it is longer than 1 MiB, which takes YAML long to read; write it as JSON")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it uses the alias *{event.anchor}; write out what it stands for")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise RecursionError
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return None if node is None else _value(node)


def _value(node: "Node") -> Any:
    """Plain numbers as numbers, other scalars as text: YAML's own rules read 010 as 8, 1:30 as 90 and 1e9 as text."""
    if node.id == "mapping":
        return _object([(_key(key), _value(value)) for key, value in node.value])
    if node.id == "sequence":
        return [_value(entry) for entry in node.value]
    if node.style is None:
        try:
            return number(node.value)
        except ValueError:
            pass
    return node.value


def _key(node: "Node") -> str:
    if node.id != "scalar":
        raise ValueError("a key is a list or an object; keys are names")
    return str(node.value)
