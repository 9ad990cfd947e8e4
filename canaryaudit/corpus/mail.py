"""E-mail messages: single files (.eml) and mailboxes (.mbox), each message a document."""

import email
import re
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from html.parser import HTMLParser
from typing import Any

from canaryaudit.corpus.raw_text import MAX_RECORD, RawText
from canaryaudit.errors import CorpusError

_HEADERS = ("From", "To", "Cc", "Subject", "Date")
_BLOCKS = frozenset(
    ("p", "div", "br", "hr", "tr", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote", "pre")
)
_CELLS = frozenset(("td", "th"))
_HIDDEN = frozenset(("script", "style", "title"))
_LONGEST_HEADER = 10_000
_FROM = b"From "
# What the standard library's parser raises on headers that are no headers.
_PARSER_FAULTS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
_SPACES = re.compile(r"\s+")


class MailText:
    """Reads messages as texts, and counts their attachments, which are left out."""

    def __init__(self) -> None:
        self.messages = self.attachments = 0

    def documents(self, source: RawText, *, mailbox: bool) -> Iterator[tuple[str, ...]]:
        """Yield the text of every message: its headers, a blank line and its body.

        Raises:
            CorpusError: The file cannot be read, or holds no message.
        """
        for data in _mailbox(source) if mailbox else [b"".join(source.raw_lines())]:
            self.messages += 1
            yield (self._text(data, source),)
        if not self.messages:
            raise CorpusError(f"{source.shown} holds no message: each must begin with a line 'From …'")

    def _text(self, data: bytes, source: RawText) -> str:
        try:
            # The default policy's parser of headers takes quadratic time.
            message = email.message_from_bytes(data)
            headers = [f"{name}: {value}" for name in _HEADERS for value in _values(message, name)]
            texts = [text for part in _bodies(message) if (text := _content(part))]
            attached = sum(_is_attached(part) for part in message.walk() if not part.is_multipart())
        except _PARSER_FAULTS:
            raise CorpusError(
                f"message {self.messages} of {source.shown} is not a valid e-mail: correct or remove it"
            ) from None
        self.attachments += attached
        text = "\n".join(" ".join(header.split()) for header in headers) + "\n\n" + "\n\n".join(texts)
        return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode("utf-8")


def _values(message: Message, name: str) -> Iterator[str]:
    """Yield the values of a header; as they are written where they are long or cannot be decoded."""
    for own, raw in message.raw_items():
        if own.lower() == name.lower():
            value = str(raw).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            try:
                yield str(make_header(decode_header(value))) if len(value) <= _LONGEST_HEADER else value
            except (MessageError, *_PARSER_FAULTS):
                yield value


def _bodies(part: Message) -> Iterator[Message]:
    """Yield the parts of a message that a reader sees: of alternatives the plain text, or the page if it is blank."""
    if not part.is_multipart():
        if not _is_attached(part):
            yield part
        return
    inner = [list(_bodies(own)) for own in part.get_payload() if isinstance(own, Message)]
    if part.get_content_type() == "multipart/alternative":
        said = [own for own in inner if any(_content(body).strip() for body in own)]
        plain = [own for own in said if all(body.get_content_type() == "text/plain" for body in own)]
        pages = [own for own in said if any(body.get_content_type() == "text/html" for body in own)]
        inner = (plain or pages or said)[:1]
    for own in inner:
        yield from own


def _is_attached(part: Message) -> bool:
    """Return whether a part is an attachment; one that lost its boundaries is text."""
    return part.get_content_disposition() == "attachment" or part.get_content_maintype() not in ("text", "multipart")


def _content(part: Message) -> str:
    payload: Any = part.get_payload(decode=True) or b""
    try:
        text = payload.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        text = payload.decode("utf-8", "replace")
    return _visible_text(text) if part.get_content_type() == "text/html" else str(text)


def _mailbox(source: RawText) -> Iterator[bytes]:
    """Yield the messages of a mailbox; in their bodies, ``>From`` stands for ``From``."""
    lines: list[bytes] | None = None
    size, blank = 0, True
    for line in source.raw_lines():
        if blank and line.startswith(_FROM):
            if lines is not None:
                yield b"".join(lines)
            lines, size = [], 0
        elif lines is not None:
            lines.append(line[1:] if line.lstrip(b">").startswith(_FROM) and line.startswith(b">") else line)
            size += len(line)
            if size > MAX_RECORD:
                raise CorpusError(f"{source.shown} has a message of more than {MAX_RECORD:,} bytes: remove it")
        blank = not line.strip()
    if lines is not None:
        yield b"".join(lines)


class _VisibleText(HTMLParser):
    """Collects what a reader of a page sees."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._hidden += tag in _HIDDEN
        if tag in _BLOCKS or tag in _CELLS:
            self.parts.append("\n" if tag in _BLOCKS else " ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(_SPACES.sub(" ", data))


def _visible_text(page: str) -> str:
    parser = _VisibleText()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)
