"""Resources, prompts and completions: the SDK's requests, answered from the host."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    GetPromptRequestParams,
    PaginatedRequestParams,
    PromptReference,
    ReadResourceRequestParams,
)
from mcp_types.methods import CacheableMethod
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from typing_extensions import Unpack

from ..content.catalog import ContentCatalog
from ..errors import (
    CallRefused,
    ContentFailed,
    InvalidArguments,
    ResourceNotFound,
    UnknownPrompt,
    UnknownResource,
)
from ..host.content import CallOptions, Content, Suggestions
from ..spec import Principal, PromptSpec, ResourceSpec
from .leading import lead
from .results import error_of, plain

S = TypeVar("S")

#: What handshake-era clients know a missing resource by; later ones see `INVALID_PARAMS`.
RESOURCE_NOT_FOUND = -32002

_CURSOR = "after:"


def cache_hints(ttl_ms: int) -> dict[CacheableMethod, CacheHint]:
    """Return for how long clients may keep the answers of this module.

    :param ttl_ms: for lists. What is read may be another thing the next time.
    """
    kept = CacheHint(ttl_ms=ttl_ms, scope="private")
    return {
        "resources/list": kept,
        "resources/templates/list": kept,
        "prompts/list": kept,
        "resources/read": CacheHint(ttl_ms=0, scope="private"),
    }


class ContentHost(Protocol):
    """What this module needs of `mcpd_core.host.Host`."""

    @property
    def content(self) -> ContentCatalog:
        """The resources and prompts of the enabled plugins."""
        ...

    def content_for(self, principal: Principal) -> ContentCatalog:
        """Return those that somebody may see."""
        ...

    async def read_resource(
        self, uri: str, *, principal: Principal, client: str, **options: Unpack[CallOptions]
    ) -> Content:
        """Read what is at a URI."""
        ...

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        **options: Unpack[CallOptions],
    ) -> tuple[PromptSpec, list[dict[str, Any]]]:
        """Have a prompt written."""
        ...

    def declared_resource(self, uri: str) -> ResourceSpec:
        """Return the resource, or template, that is written like this."""
        ...

    def declared_prompt(self, name: str) -> PromptSpec:
        """Return the prompt of that name."""
        ...

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
        """Suggest values for an argument."""
        ...


class ContentHandlers:
    """The handlers of the requests about resources, prompts and completions.

    :param page: items per page of a list.
    :param shelter: see `leading.lead`.
    """

    def __init__(self, host: ContentHost, *, page: int, shelter: bool) -> None:
        self._host = host
        self._page = page
        self._shelter = shelter

    def register(self, sdk: Server[Any]) -> None:
        """Have the SDK's server answer with these handlers."""
        paginated = PaginatedRequestParams
        sdk.add_request_handler("resources/list", paginated, self.list_resources)
        sdk.add_request_handler("resources/templates/list", paginated, self.list_templates)
        sdk.add_request_handler("resources/read", ReadResourceRequestParams, self.read)
        sdk.add_request_handler("prompts/list", paginated, self.list_prompts)
        sdk.add_request_handler("prompts/get", GetPromptRequestParams, self.get_prompt)
        sdk.add_request_handler("completion/complete", CompleteRequestParams, self.complete)

    def not_offered(self) -> dict[str, None]:
        """Return the capabilities that no enabled plugin gives reason for."""
        content = self._host.content
        specs: tuple[ResourceSpec | PromptSpec, ...] = (*content.templates, *content.prompts)
        offered = {
            "resources": bool(content.resources or content.templates),
            "prompts": bool(content.prompts),
            "completions": any(spec.complete for spec in specs),
        }
        return {capability: None for capability, there in offered.items() if not there}

    # --- lists ------------------------------------------------------------------------------------

    async def list_resources(
        self, ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams
    ) -> dict[str, Any]:
        """Answer one page of the resources that have a URI of their own."""
        specs = self._content_for(ctx).resources
        return self._paged("resources", specs, params.cursor, _uri_of, resource_of)

    async def list_templates(
        self, ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams
    ) -> dict[str, Any]:
        """Answer one page of the resource templates."""
        specs = self._content_for(ctx).templates
        return self._paged("resourceTemplates", specs, params.cursor, _uri_of, resource_of)

    async def list_prompts(
        self, ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams
    ) -> dict[str, Any]:
        """Answer one page of the prompts."""
        specs = self._content_for(ctx).prompts
        return self._paged("prompts", specs, params.cursor, _name_of, prompt_of)

    def _content_for(self, ctx: ServerRequestContext[Any, Any]) -> ContentCatalog:
        return self._host.content_for(ctx.lifespan_context.principal)

    def _paged(
        self,
        field: str,
        specs: Sequence[S],
        cursor: str | None,
        key: Callable[[S], str],
        render: Callable[[S], dict[str, Any]],
    ) -> dict[str, Any]:
        start = 0
        if cursor is not None:
            # A cursor names the last item of the page before, so that it holds its place when
            # items come and go between two pages.
            if not cursor.startswith(_CURSOR):
                raise MCPError(INVALID_PARAMS, "Unknown cursor; start again without one.")
            start = bisect_right([key(spec) for spec in specs], cursor[len(_CURSOR) :])
        page = specs[start : start + self._page]
        answer: dict[str, Any] = {
            field: [render(spec) for spec in page],
            "resultType": "complete",
        }
        if start + self._page < len(specs):
            answer["nextCursor"] = _CURSOR + key(page[-1])
        return answer

    # --- calls ------------------------------------------------------------------------------------

    async def read(
        self, ctx: ServerRequestContext[Any, Any], params: ReadResourceRequestParams
    ) -> dict[str, Any]:
        """Answer with what is at a URI."""
        uri = str(params.uri)
        call = partial(self._host.read_resource, uri)
        missing = (
            INVALID_PARAMS
            if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
            else RESOURCE_NOT_FOUND
        )
        with _translated():
            try:
                content = await lead(ctx, uri, call, shelter=self._shelter)
            except UnknownResource as exc:
                raise MCPError(missing, exc.message, {"uri": uri}) from None
            except ContentFailed as exc:
                if exc.kind != ResourceNotFound.code:
                    raise
                raise MCPError(missing, exc.message, {"uri": uri}) from None
        body = {"text": content.text} if content.blob is None else {"blob": content.blob}
        return {
            "contents": [{"uri": uri, "mimeType": content.mime_type, **body}],
            "resultType": "complete",
        }

    async def get_prompt(
        self, ctx: ServerRequestContext[Any, Any], params: GetPromptRequestParams
    ) -> dict[str, Any]:
        """Answer with a prompt's messages."""
        call = partial(self._host.get_prompt, params.name, params.arguments or {})
        with _translated():
            spec, messages = await lead(ctx, params.name, call, shelter=self._shelter)
        answer: dict[str, Any] = {"messages": messages, "resultType": "complete"}
        if spec.description:
            answer["description"] = spec.description
        return answer

    async def complete(
        self, ctx: ServerRequestContext[Any, Any], params: CompleteRequestParams
    ) -> dict[str, Any]:
        """Answer with values for an argument."""
        known = (params.context.arguments if params.context else None) or {}
        of: ResourceSpec | PromptSpec
        with _translated():
            if isinstance(params.ref, PromptReference):
                of = self._host.declared_prompt(params.ref.name)
            else:
                of = self._host.declared_resource(str(params.ref.uri))
            call = partial(
                self._host.complete, of, params.argument.name, params.argument.value, known
            )
            found = await lead(ctx, of.name, call, shelter=self._shelter)
        return {
            "completion": {
                "values": list(found.values),
                "total": found.total,
                "hasMore": found.total > len(found.values),
            },
            "resultType": "complete",
        }


def resource_of(spec: ResourceSpec) -> dict[str, Any]:
    """Render one resource, or template, as clients see it."""
    uri = "uriTemplate" if spec.is_template else "uri"
    return _filled(
        {
            uri: spec.uri,
            "name": spec.name,
            "title": spec.title,
            "description": spec.description,
            "mimeType": spec.mime_type,
        }
    )


def prompt_of(spec: PromptSpec) -> dict[str, Any]:
    """Render one prompt as clients see it."""
    arguments = [
        {
            **_filled({"name": argument.name, "description": argument.description}),
            "required": argument.required,
        }
        for argument in spec.arguments
    ]
    described = {"name": spec.name, "title": spec.title, "description": spec.description}
    return {**_filled(described), "arguments": arguments}


def _filled(item: Mapping[str, str]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if value}


def _uri_of(spec: ResourceSpec) -> str:
    return spec.uri


def _name_of(spec: PromptSpec) -> str:
    return spec.name


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the host raises into the JSON-RPC errors that say so."""
    try:
        yield
    except (UnknownPrompt, UnknownResource, InvalidArguments) as exc:
        error = error_of(exc).error
        raise MCPError(INVALID_PARAMS, error.message, error.data) from None
    except CallRefused as exc:
        raise error_of(exc) from None
    except ContentFailed as exc:
        raise MCPError(INTERNAL_ERROR, exc.message, plain(exc.data)) from None
