"""HTML from Python values, escaped unless it is HTML already."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from ..data.image import read_image
from ..errors import DataError

THUMBNAIL = 240  # pixels of the longer side, twice the size on the page for sharp screens


class Html(str):
    """A piece of finished HTML; every other string is text and is escaped."""

    __slots__ = ()


def html(value: object) -> Html:
    """``value`` as HTML: text is escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], between: str = "\n") -> Html:
    """Pieces one after the other."""
    return Html(between.join(html(part) for part in parts))


def tag(name: str, *content: object, **attributes: str) -> Html:
    """``<name attribute="...">content</name>``; ``class_`` stands for the attribute ``class``."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{join(content, '')}</{name}>")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> Html:
    """A table that scrolls sideways where the screen is narrow.

    ``align``: one letter a column, "l" for text or "r" for numbers; text where it is shorter than the columns.
    """
    classes = ["num" if letter == "r" else "text" for letter in align.ljust(len(headers), "l")]
    head = join((tag("th", text, class_=name, scope="col") for text, name in zip(headers, classes, strict=True)), "")
    body = join(
        tag("tr", *(tag("td", cell, class_=name) for cell, name in zip(row, classes, strict=True))) for row in rows
    )
    return tag("div", tag("table", tag("thead", tag("tr", head)), tag("tbody", body)), class_="scroll")


def data_uri(data: bytes, kind: str) -> str:
    """``data`` inside the page, with no request for it."""
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def picture(light: bytes, dark: bytes, description: str, class_: str = "plot") -> Html:
    """A PNG that follows the reader's choice of a light or dark page."""
    return Html(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{data_uri(dark, "png")}">'
        f'<img class="{escape(class_)}" alt="{escape(description)}" src="{data_uri(light, "png")}"></picture>'
    )


def document(title: str, body: Html) -> str:
    """A whole page around ``body``: one file that needs nothing else."""
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{tag('title', title)}\n<style>\n{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def thumbnail(file: str, description: str) -> Html:
    """An image file, small, inside the page; or why it cannot be shown."""
    try:
        image = Image.fromarray(read_image(file, short_side=THUMBNAIL))
    except DataError as error:
        return tag("p", f"This image cannot be shown: {error}", class_="quiet")
    return small(image, description)


def small(image: Image.Image, description: str, side: int = THUMBNAIL) -> Html:
    """A picture inside the page, of at most ``side`` pixels."""
    tiny = max(image.size) < 64
    image.thumbnail((side, side))
    buffer = BytesIO()
    image.save(buffer, format="PNG" if tiny else "JPEG", quality=85)
    uri = data_uri(buffer.getvalue(), "png" if tiny else "jpeg")
    kind = "tiny" if tiny else "photo"
    return Html(f'<img class="{kind}" loading="lazy" alt="{html(description)}" src="{uri}">')
