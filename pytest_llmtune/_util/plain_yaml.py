"""YAML from strangers: one document of plain data, without tags, aliases or duplicate keys, within limits of size."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    import yaml

__all__ = ["load"]


def load(text: str, *, max_chars: int = 4_000_000, max_depth: int = 50) -> Any:
    """Read plain data.

    Raises:
        ValueError: the text is no such YAML; the message starts with ``line N: `` where a line is to blame.
    """
    import yaml

    if len(text) > max_chars:
        raise ValueError(f"{len(text):,} characters are more than the limit of {max_chars:,}")
    try:
        loader = _loader_class()(text)
        loader.max_depth = max_depth
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}: the character #x{error.character:02x} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except (ValueError, OverflowError, RecursionError) as error:  # 5,000 digits, a date of month 99, ...
        raise ValueError(f"a value cannot be read: {error}") from None


@cache
def _loader_class() -> Any:
    """A safe loader with our refusals; made on first use, because yaml must not be imported before."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        max_depth = 50
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.composer.ComposerError(
                    None, None, "anchors and aliases are not allowed here", event.start_mark
                )
            if getattr(event, "tag", None):
                raise yaml.composer.ComposerError(None, None, "tags are not allowed here", event.start_mark)
            self.depth += 1
            if self.depth > self.max_depth:
                raise yaml.composer.ComposerError(None, None, "nested too deeply", event.start_mark)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Any] = set()
            for key, _ in node.value:
                if key.value in seen if isinstance(key.value, str) else True:
                    problem = (
                        f"the key {key.value!r} stands twice" if isinstance(key.value, str) else "a key is no text"
                    )
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return PlainLoader
