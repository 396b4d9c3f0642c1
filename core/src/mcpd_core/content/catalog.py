"""The resources and prompts of the enabled plugins, looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..spec import PromptSpec, ResourceSpec
from .template import UriTemplate


class ContentCatalog:
    """Resources by URI and prompts by name.

    :param resources: no URI is two plugins', which selection sees to.
    :param prompts: names are unique among them.
    """

    def __init__(self, resources: Iterable[ResourceSpec], prompts: Iterable[PromptSpec]) -> None:
        by_uri = sorted(resources, key=lambda spec: spec.uri)
        #: Resources with a URI of their own, sorted by it.
        self.resources = tuple(spec for spec in by_uri if not spec.is_template)
        #: Resources that are all those which match a template, sorted by it.
        self.templates = tuple(spec for spec in by_uri if spec.is_template)
        #: Prompts, sorted by name.
        self.prompts = tuple(sorted(prompts, key=lambda spec: spec.name))
        self._by_uri = {spec.uri: spec for spec in by_uri}
        self._by_name = {spec.name: spec for spec in self.prompts}
        self._templates = tuple((UriTemplate(spec.uri), spec) for spec in self.templates)

    def filtered(self, shown: Callable[[ResourceSpec | PromptSpec], bool]) -> ContentCatalog:
        """Return what remains of it when only what is shown counts."""
        every: tuple[ResourceSpec | PromptSpec, ...]
        every = (*self.resources, *self.templates, *self.prompts)
        if all(map(shown, every)):
            return self
        return ContentCatalog(
            filter(shown, (*self.resources, *self.templates)), filter(shown, self.prompts)
        )

    def resource(self, uri: str) -> tuple[ResourceSpec, dict[str, str]] | None:
        """Return the resource at a URI and the values of its placeholders, or ``None``."""
        spec = self._by_uri.get(uri)
        if spec is not None and not spec.is_template:
            return spec, {}
        for template, spec in self._templates:
            values = template.match(uri)
            if values is not None:
                return spec, values
        return None

    def declared(self, uri: str) -> ResourceSpec | None:
        """Return the resource whose URI, or URI template, is written just like this."""
        return self._by_uri.get(uri)

    def prompt(self, name: str) -> PromptSpec | None:
        """Return the prompt of that name, or ``None``."""
        return self._by_name.get(name)

    def close_matches(self, name: str, n: int = 3) -> list[str]:
        """Return the names of the prompts that a misspelt name comes closest to, best first."""
        import difflib  # only needed for error messages

        return difflib.get_close_matches(name, self._by_name, n=n)
