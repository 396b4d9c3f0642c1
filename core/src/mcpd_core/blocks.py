"""What an answer can hold beside text: pictures, sound, and resources.

These are the content blocks of the Model Context Protocol, as plugin authors write them and as
mappings, which is the form that they are sent in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

#: The kinds of blocks that the protocol has.
TYPES = ("text", "image", "audio", "resource", "resource_link")


class NotABlock(ValueError):
    """Raised when something is to be part of an answer and is no content block."""


@dataclass(frozen=True)
class Image:
    """A picture.

    :ivar data: the file's bytes; they are encoded when the answer is sent.
    """

    data: bytes
    mime_type: str = "image/png"

    def to_block(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        return {"type": "image", "data": _encoded(self.data), "mimeType": self.mime_type}


@dataclass(frozen=True)
class Audio:
    """A recording.

    :ivar data: the file's bytes; they are encoded when the answer is sent.
    """

    data: bytes
    mime_type: str = "audio/wav"

    def to_block(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        return {"type": "audio", "data": _encoded(self.data), "mimeType": self.mime_type}


@dataclass(frozen=True)
class EmbeddedResource:
    """A resource with what is in it.

    :ivar uri: its name; no client needs to be able to read it there.
    :ivar content: text, or the bytes of anything else.
    :ivar mime_type: ``text/plain`` or ``application/octet-stream`` when empty.
    """

    uri: str
    content: str | bytes
    mime_type: str = ""

    def to_block(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        if isinstance(self.content, str):
            kind, body = "text/plain", {"text": self.content}
        else:
            kind, body = "application/octet-stream", {"blob": _encoded(self.content)}
        resource = {"uri": self.uri, "mimeType": self.mime_type or kind, **body}
        return {"type": "resource", "resource": resource}


@dataclass(frozen=True)
class ResourceLink:
    """A resource that the client may read, with ``resources/read``, if it wants to.

    :ivar uri: one that a plugin offers.
    :ivar name: for programs.
    """

    uri: str
    name: str
    title: str = ""
    description: str = ""
    mime_type: str = ""

    def to_block(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        told = {
            "title": self.title,
            "description": self.description,
            "mimeType": self.mime_type,
        }
        given = {key: value for key, value in told.items() if value}
        return {"type": "resource_link", "uri": self.uri, "name": self.name, **given}


#: A block as plugin authors write it.
Block: TypeAlias = Image | Audio | EmbeddedResource | ResourceLink
_BLOCKS = (Image, Audio, EmbeddedResource, ResourceLink)


def as_block(value: object) -> dict[str, Any]:
    """Return a part of an answer as the protocol has it.

    :param value: text, a `Block`, or the mapping that such a block is sent as.
    :raises NotABlock: when it is none of these.
    """
    if isinstance(value, str):
        return {"type": "text", "text": value}
    if isinstance(value, _BLOCKS):
        return value.to_block()
    if isinstance(value, Mapping) and value.get("type") in TYPES:
        return dict(value)
    raise NotABlock(f"{type(value).__name__} is no content block")


def is_made_of_blocks(value: object) -> bool:
    """Whether an answer is a `Block`, or a list of them and of text that has at least one."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, _BLOCKS) for item in value)
    return isinstance(value, _BLOCKS)


def promises_blocks(hint: Any) -> bool:
    """Whether a return annotation says so: ``Image``, ``list[str | Image]`` and the like."""
    leaves = set(_leaves(hint))
    return bool(leaves & set(_BLOCKS)) and leaves <= {*_BLOCKS, str, type(None)}


def in_words(blocks: Iterable[Mapping[str, Any]]) -> str:
    """Return what somebody sees who can only read: a line for each block that is no text."""
    return "\n".join(map(_in_words, blocks))


def _in_words(block: Mapping[str, Any]) -> str:
    if block["type"] == "text":
        return str(block.get("text", ""))
    resource = block.get("resource")
    if isinstance(resource, Mapping) and "text" in resource:
        return str(resource["text"])
    told = resource if isinstance(resource, Mapping) else block
    data = next((told[key] for key in ("data", "blob") if key in told), None)
    size = "" if data is None else f"{len(str(data).rstrip('=')) * 3 // 4:,} bytes"
    facts = (told.get("uri"), told.get("mimeType"), size)
    return (
        f"[{', '.join([block['type'].replace('_', ' '), *(str(fact) for fact in facts if fact)])}]"
    )


def _leaves(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType, list, tuple, Sequence):
        for part in get_args(hint):
            if part is not Ellipsis:
                yield from _leaves(part)
    else:
        yield hint


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
