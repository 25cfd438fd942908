"""StepProfile: what the taps tell of one train step about times, memory and FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from neural.session.frame import BACKWARD, OPTIMIZER
from neural.session.statistics import FloatArray
from neural_callbacks.keras.on_torch.taps import Place, presented
from neural_callbacks.keras.optimizers import optimizers_of, state_of
from neural_callbacks.keras.structure import Catalog, find_containers
from neural_callbacks.pytorch.profile import Profile
from neural_callbacks.pytorch.sentinel import in_backward
from neural_callbacks.recorder import Recorder

PROFILE = "the profile"  # the part that an error in it switches off


class StepProfile:
    """Leads to `profile` what happens in the step; without one nothing is kept, and what fails ends it."""

    def __init__(self, model: Any, profile: Profile | None, recorder: Recorder) -> None:
        self._model = model
        self._profile = profile
        self._recorder = recorder
        self._depth = 0  # how many layers and models are running, one inside another

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._profile is not None

    def places(self) -> Iterator[Place]:
        """Yield what is replaced to see the models and layers that hold those which are measured."""
        if self.is_on:
            for container in find_containers(self._model):
                yield container, "call", self._container_tap(container)

    def _container_tap(self, container: Any) -> Callable[..., Any]:
        call = container.call

        def tapped(*args: Any, **kwargs: Any) -> Any:
            self._enter(container, args, is_layer=False)
            outputs = call(*args, **kwargs)
            self._leave(container, is_layer=False)
            return outputs

        return presented(tapped, call)

    def enter(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        """Take in that a layer begins: the last thing before it."""
        self._enter(layer, inputs, is_layer=True)
        self._tell(lambda profile: profile.enter(layer, inputs))

    def leave(self, layer: Any, outputs: Sequence[Tensor]) -> None:
        """Take in that it has ended: the first thing after it."""
        self._tell(lambda profile: profile.leave(layer, outputs))
        self._leave(layer, is_layer=True)

    def _enter(self, module: Any, inputs: tuple[Any, ...], *, is_layer: bool) -> None:
        if self._depth == 0 and not in_backward():
            self._tell(lambda profile: profile.begin_pass(module, inputs, is_layer=is_layer))
        self._depth += 1

    def _leave(self, module: Any, *, is_layer: bool) -> None:
        self._depth -= 1
        if self._depth == 0 and not in_backward():
            self._tell(lambda profile: profile.end_pass(module, is_layer=is_layer))

    def backward_begins(self) -> None:
        """Take in that training goes back."""
        self._tell(lambda profile: profile.open(BACKWARD))

    def backward_ends(self) -> None:
        """Take in that it has come to the end of the way back."""
        self._tell(lambda profile: profile.close(BACKWARD))

    def optimizer_begins(self) -> None:
        """Take in that an optimizer begins to step."""
        self._tell(lambda profile: profile.open(OPTIMIZER))

    def optimizer_ends(self) -> None:
        """Take in that it has stepped."""
        self._tell(lambda profile: profile.close(OPTIMIZER))

    def mark(self) -> Any:
        """Return this moment, for `own_since`."""
        return None if self._profile is None else self._profile.mark()

    def own_since(self, mark: Any) -> None:
        """Leave out of all times what was done since `mark`."""
        if mark is not None:
            self._tell(lambda profile: profile.own_since(mark))

    def _tell(self, tell: Callable[[Profile], None]) -> None:
        if self._profile is not None:
            try:
                tell(self._profile)
            except Exception as error:  # noqa: BLE001 - whatever it is, the statistics go on
                self._profile = None
                self._recorder.failed(PROFILE, error)

    def finish(
        self, catalog: Catalog, layers: Sequence[Any], reached: set[Any]
    ) -> tuple[dict[str, FloatArray], dict[str, float]]:
        """Return the profiles of the step's frame, and figures of the whole step; both are empty without a profile.

        `layers` are those which are measured, `reached` those of them whose outputs a gradient reached.
        """
        if self._profile is not None:
            with self._recorder.contained(PROFILE):
                table = catalog.table()
                rows = {layer: row for layer in layers if (row := catalog.row_of(layer)) is not None}
                parameters = zip(catalog.variables, table.parameters, strict=True)
                owners = {variable.value: parameter.layer for variable, parameter in parameters}
                states = [_state(optimizer) for optimizer in optimizers_of(self._model)]
                return self._profile.finish(rows, len(table.layers), owners, states, reached)
        return {}, {}


def _state(optimizer: Any) -> dict[Tensor, list[Tensor]]:
    state: dict[Tensor, list[Tensor]] = {}
    for variable, kept in state_of(optimizer):
        state.setdefault(variable.value, []).append(kept.value)
    return state
