"""YAML by the 1.2 core schema: `1e-5` is a number, `no` and `12:30` are strings, a date stays text."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipelines.errors import UsageError

Places = dict[tuple[str | int, ...], str]
"""Where every key stands, as ``file:line`` or an option, by its path."""


class Loader(yaml.SafeLoader):
    """SafeLoader with the 1.2 rules and without the tags that have no JSON counterpart."""


class Dumper(yaml.SafeDumper):
    """Quotes by the same rules as the loader reads: the text `1e5` stays text."""


_TAGS = {"null", "bool", "int", "float", "str", "seq", "map"}
Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _TAGS
}
Loader.yaml_implicit_resolvers = Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        [*"-+.0123456789"],
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", [*"~nN", ""]),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, name: str) -> tuple[Any, Places]:
    """Parse one YAML document.

    Returns:
        The data (None where there is nothing), and the place of every key.

    Raises:
        UsageError: not YAML, or a key stands twice.
    """
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            places: Places = {}
            _index(node, (), places, name, ())
            return loader.construct_document(node), places
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UsageError(f"not valid YAML: {error.problem or error.context}", where=where) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"not valid YAML: {error}", where=name) from error


_MOST_KEYS = 100_000
"""Keys and entries of a document; a few nested aliases can stand for more than any machine holds."""


def _index(
    node: yaml.Node, path: tuple[str | int, ...], places: Places, name: str, above: tuple[yaml.Node, ...]
) -> None:
    """Note the line of every key below `node`; `above` are the nodes around it."""
    if any(node is other for other in above):
        raise UsageError("an alias refers to itself", where=places[path])
    places.setdefault(path, f"{name}:{node.start_mark.line + 1}")
    if len(places) > _MOST_KEYS:
        raise UsageError(f"more than {_MOST_KEYS:,} keys, or aliases that stand for as many", where=name)
    inside = (*above, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            label, place = str(key.value), f"{name}:{key.start_mark.line + 1}"
            if label in seen:
                raise UsageError(f"the key `{label}` stands twice", where=place)
            seen.add(label)
            places[(*path, label)] = place
            _index(value, (*path, label), places, name, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _index(item, (*path, index), places, name, inside)
