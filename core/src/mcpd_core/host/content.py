"""Reading resources, getting prompts and completing their arguments: calls like those of tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict, Unpack

from ..content.catalog import ContentCatalog
from ..content.template import UriTemplate
from ..errors import ContentFailed, InvalidArguments, UnknownPrompt, UnknownResource
from ..spec import (
    CallResult,
    Offer,
    Principal,
    Progress,
    PromptSpec,
    ResourceSpec,
    RuntimeName,
)
from .policy import authorise, may_call

if TYPE_CHECKING:
    from ..settings import Settings


class CallOptions(TypedDict, total=False):
    """What may be said of any call; see `Host.call`."""

    timeout: float | None
    on_progress: Callable[[Progress], None] | None
    on_log: Callable[[str, str], None] | None
    trace: Mapping[str, str] | None
    on_start: Callable[[], None] | None


@dataclass(frozen=True)
class Content:
    """What was read.

    :ivar text: the text, or ``None`` when it is binary.
    :ivar blob: otherwise the bytes, as base64.
    """

    mime_type: str
    text: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class Suggestions:
    """Values for an argument.

    :ivar values: the best of them.
    :ivar total: how many there are.
    """

    values: tuple[str, ...] = ()
    total: int = 0


@dataclass(frozen=True)
class CompletionSpec:
    """The contract of what suggests values for one parameter.

    :ivar of: the resource or the prompt that has the parameter.
    """

    of: ResourceSpec | PromptSpec
    name: str

    @property
    def label(self) -> str:
        """For messages."""
        return f"completion of {self.name!r} for the {self.of.label}"

    @property
    def entry(self) -> str:
        """Where the function is whose mark names the completion."""
        return self.of.entry

    @property
    def plugin(self) -> str:
        """The name of the plugin that offers it."""
        return self.of.plugin

    @property
    def runtime(self) -> RuntimeName:
        """The library that an ``async def`` is written for."""
        return self.of.runtime

    @property
    def timeout(self) -> float | None:
        """Seconds after which it is cancelled; ``None`` means the host's default."""
        return self.of.timeout


class ContentCalls(ABC):
    """The part of the host that serves what plugins offer besides tools."""

    settings: Settings
    content: ContentCatalog

    @abstractmethod
    async def _lead(
        self,
        spec: Offer,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        **options: Unpack[CallOptions],
    ) -> CallResult: ...

    def content_for(self, principal: Principal) -> ContentCatalog:
        """Return the resources and prompts that a principal may read and get."""
        http, content = self.settings.http, self.content
        return content.filtered(lambda spec: may_call(principal, spec, http))

    async def read_resource(
        self,
        uri: str,
        *,
        principal: Principal,
        client: str,
        **options: Unpack[CallOptions],
    ) -> Content:
        """Read what is at a URI.

        :param client: whose queue the call joins when permits are short.
        :param options: as for `Host.call`.
        :raises ContentFailed: when its function failed; of the kind ``resource_not_found`` when
            there is nothing at the URI.
        :raises CallRefused: when its function did not start.
        """
        found = self.content.resource(uri)
        if found is None:
            raise UnknownResource(f"No resource is at {uri[:200]!r}.")
        spec, values = found
        data = await self._content(spec, values, principal, client, options)
        return Content(**data)

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        **options: Unpack[CallOptions],
    ) -> tuple[PromptSpec, list[dict[str, Any]]]:
        """Have a prompt written.

        :param client: whose queue the call joins when permits are short.
        :param options: as for `Host.call`.
        :returns: its contract and its messages, each with ``role`` and a content block.
        :raises ContentFailed: when its function failed.
        :raises CallRefused: when its function did not start.
        """
        spec = self._prompt(name)
        data = await self._content(spec, arguments, principal, client, options)
        return spec, data["messages"]

    async def complete(
        self,
        of: ResourceSpec | PromptSpec,
        argument: str,
        value: str,
        known: Mapping[str, str],
        *,
        principal: Principal,
        client: str,
        **options: Unpack[CallOptions],
    ) -> Suggestions:
        """Suggest values for an argument of a prompt or a placeholder of a resource.

        :param of: as `declared_resource` or `declared_prompt` returned it.
        :param value: what has been typed so far.
        :param known: values of other arguments, as far as they are known.
        :param client: whose queue the call joins when permits are short.
        :param options: as for `Host.call`.
        :returns: nothing when its plugin has no completion for the argument.
        :raises ContentFailed: when the completion's function failed.
        :raises CallRefused: when it did not start.
        """
        authorise(principal, of, self.settings.http)
        if argument not in of.complete:
            if argument not in _parameters(of):
                raise InvalidArguments(f"The {of.label} has no argument {argument[:200]!r}.")
            return Suggestions()
        arguments = {"value": value, "known": known}
        spec = CompletionSpec(of, argument)
        data = await self._content(spec, arguments, principal, client, options)
        return Suggestions(tuple(data["values"]), data["total"])

    def declared_resource(self, uri: str) -> ResourceSpec:
        """Return the resource whose URI, or URI template, is written just like this.

        :raises UnknownResource: when there is none.
        """
        spec = self.content.declared(uri)
        if spec is None:
            raise UnknownResource(f"No resource or template is {uri[:200]!r}.")
        return spec

    def declared_prompt(self, name: str) -> PromptSpec:
        """Return the prompt of that name.

        :raises UnknownPrompt: when there is none.
        """
        return self._prompt(name)

    def _prompt(self, name: str) -> PromptSpec:
        spec = self.content.prompt(name)
        if spec is None:
            close = self.content.close_matches(name)
            raise UnknownPrompt(
                f"No prompt is called {name[:200]!r}.",
                hint=f"Did you mean {' or '.join(map(repr, close))}?" if close else "",
            )
        return spec

    async def _content(
        self,
        spec: Offer,
        arguments: Mapping[str, Any],
        principal: Principal,
        client: str,
        options: CallOptions,
    ) -> dict[str, Any]:
        authorise(principal, spec, self.settings.http)
        result = await self._lead(spec, arguments, principal=principal, client=client, **options)
        if result.error is not None:
            raise ContentFailed(result.text, kind=result.error["code"], data=result.error)
        assert result.structured is not None
        return result.structured


def _parameters(of: ResourceSpec | PromptSpec) -> tuple[str, ...]:
    if isinstance(of, ResourceSpec):
        return UriTemplate(of.uri).names
    return tuple(argument.name for argument in of.arguments)
