"""Values written in a document: where they stand, and whether PostgreSQL could store their text.

A walk without recursion over arguments, defaults and what is nested in them. It runs only for documents that are
refused or that contain an escape, never on the path of a good request.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphql import (
    ArgumentNode,
    DocumentNode,
    ListValueNode,
    Node,
    ObjectFieldNode,
    ObjectValueNode,
    StringValueNode,
    VariableDefinitionNode,
)

Path = list[str | int]


def path_of(document: DocumentNode, wanted: Node) -> Path:
    """The path of an argument or of a value in one, starting at the argument's name; empty for all else."""
    return next((path for node, path in _inputs(document) if node is wanted), [])


def unstorable_literal(document: DocumentNode) -> Path | None:
    """The path of the first string with a character that no text may contain, if there is one."""
    for node, path in _inputs(document):
        if isinstance(node, StringValueNode) and not is_storable(node.value):
            return path
    return None


def is_storable(text: str) -> bool:
    """Whether a text can be stored and sent: PostgreSQL refuses NUL, UTF-8 refuses lone surrogates."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inputs(document: DocumentNode) -> Iterator[tuple[Node, Path]]:
    """Every argument, variable default and value below, each with its path; those of the document's start first."""
    stack: list[tuple[Node, Path]] = [(document, [])]
    while stack:
        node, path = stack.pop()
        if isinstance(node, ArgumentNode | ObjectFieldNode):
            path = [*path, node.name.value]
        elif isinstance(node, VariableDefinitionNode):
            path = [node.variable.name.value]
        if path:
            yield node, path
        children: list[tuple[Node, Path]]
        if isinstance(node, ListValueNode):
            children = [(value, [*path, index]) for index, value in enumerate(node.values)]
        elif isinstance(node, ObjectValueNode):
            children = [(field, path) for field in node.fields]
        else:
            children = [(child, path) for child in _children(node)]
        stack.extend(reversed(children))


def _children(node: Node) -> Iterator[Node]:
    for key in node.keys:
        if key == "loc":
            continue
        child = getattr(node, key, None)
        if isinstance(child, Node):
            yield child
        elif isinstance(child, list | tuple):
            yield from (item for item in child if isinstance(item, Node))
