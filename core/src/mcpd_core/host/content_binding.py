"""From the contract of a resource, a prompt or a completion to code that can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..content.contract import render_prompt, render_resource
from ..content.functions import CompletionFunction, PromptFunction, ResourceFunction
from ..errors import PluginLoadError
from ..spec import Offer, PromptSpec, ResourceSpec, RuntimeName
from .content import CompletionSpec

ContentFunction = ResourceFunction | PromptFunction | CompletionFunction


@dataclass(frozen=True)
class BoundContent:
    """A resource, a prompt or a completion whose code is loaded.

    :ivar declared: the contract as its plugin states it.
    :ivar function: the code, its argument check and the shape of its answer.
    :ivar target: where it runs.
    :ivar stale: whether the code promises something else than the contract.
    """

    declared: Offer
    function: ContentFunction
    target: Literal["asyncio", "trio", "any", "thread"]
    stale: bool


def bind_content(loaded: Any, spec: Offer) -> BoundContent:
    """Make the code that a contract leads to ready to run.

    :param loaded: what the contract's entry names.
    :raises PluginLoadError: when it is not what the contract says.
    """
    if isinstance(spec, ResourceSpec):
        resource = ResourceFunction(loaded, plugin=spec.plugin, runtime=spec.runtime)
        # The contract's own words count, with which its placeholders have been matched.
        if resource.spec.uri != spec.uri:
            raise PluginLoadError(spec.plugin, f"{spec.entry} is the {resource.spec.label} by now.")
        same = render_resource(resource.spec, runtime="any") == render_resource(spec, runtime="any")
        return BoundContent(spec, resource, _target(resource, spec.runtime), not same)
    if isinstance(spec, PromptSpec):
        prompt = PromptFunction(loaded, plugin=spec.plugin, runtime=spec.runtime)
        same = render_prompt(prompt.spec, runtime="any") == render_prompt(spec, runtime="any")
        return BoundContent(spec, prompt, _target(prompt, spec.runtime), not same)
    assert isinstance(spec, CompletionSpec)
    completion = _completion(loaded, spec)
    return BoundContent(spec, completion, _target(completion, spec.runtime), False)


def _completion(loaded: Any, spec: CompletionSpec) -> CompletionFunction:
    kind = ResourceFunction if isinstance(spec.of, ResourceSpec) else PromptFunction
    completions = kind(loaded, plugin=spec.plugin, runtime=spec.runtime).completions
    if spec.name not in completions:
        raise PluginLoadError(spec.plugin, f"{spec.entry} has no completion of {spec.name!r}.")
    return completions[spec.name]


def _target(
    function: ContentFunction, runtime: RuntimeName
) -> Literal["asyncio", "trio", "any", "thread"]:
    return runtime if function.is_async else "thread"
