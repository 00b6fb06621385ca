"""What the check of a data set finds."""

from dataclasses import dataclass
from typing import Any, Literal

_SHOWN = 5  # names
Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a data set, and its fix; ``groups`` are the images that it is about, copies together.

    ``kind``: counts, unreadable, boxes, masks, shares, small, background, tiny, few, unequal, absent, leak,
    contradiction, copies, alike or label.
    """

    severity: Severity
    kind: str
    text: str
    fix: str = ""
    groups: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return "; ".join(filter(None, [self.text, self.fix]))

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("severity", "kind", "text", "fix")}
        return fields | {"groups": [list(group) for group in self.groups]}


def noun(count: int, name: str) -> str:
    """``name`` as it stands after ``count``: 1 image, 2 images."""
    return name if count == 1 else f"{name}s"


def listed_names(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
