"""FLOPs are those that torch's own counter finds over a whole step, and each has its layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from neural_callbacks.pytorch.flops import SHAPES_KEPT, FlopCounter, _Counting
from neural_callbacks.pytorch.layout import layers_of
from neural_callbacks.pytorch.structures import tensors

aten = torch.ops.aten
# torch has no entry for the attention of the CPU; this is its formula for the same operation elsewhere.
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop.__wrapped__,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop.__wrapped__,
}


class Hooks:
    """Tells a counter what runs, as the taps do."""

    def __init__(self, model, counter):
        self.counter = counter
        self.layers = [module for _, module in layers_of(model)]
        self.watched = {model, *self.layers}
        self.reached = set(self.layers)

    def __enter__(self):
        self.handles = [
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(self.leave, always_call=True),
        ]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()
        self.counter.close()

    def enter(self, module, inputs):
        if module in self.watched:
            self.counter.enter(module, list(tensors(inputs)))

    def leave(self, module, _inputs, _output):
        if module in self.watched:
            self.counter.leave(module)

    def take(self):
        rows = {module: row for row, module in enumerate(self.layers)}
        return self.counter.take(rows, len(rows), self.reached)


def step(model, inputs):
    for parameter in model.parameters():
        parameter.grad = None
    output = model(*inputs)
    output.float().square().mean().backward()
    return output


def counted_by_torch(model, inputs):
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as forward:
        output = model(*inputs)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as backward:
        output.float().square().mean().backward()
    return [forward.get_total_flops(), backward.get_total_flops()]


def counted(model, inputs):
    with Hooks(model, FlopCounter()) as hooks:
        step(model, inputs)
        matrix, outside = hooks.take()
    return matrix, outside, hooks.layers


class Block(nn.Module):
    """Attention without parameters of its own between layers that have them, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.qkv = nn.Linear(16, 48, bias=False)
        self.project = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
        x = x + functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        return self.head(self.project(self.norm(self.project(x))))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=4, bias=False),
        nn.Conv2d(8, 6, 1, dilation=1),
        nn.ConvTranspose2d(6, 4, 3, stride=2),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def frozen():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    for layer in (model[0], model[3]):
        layer.requires_grad_(False)
    return model


def shared():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Conv1d(4, 2, 3, padding=1))


def tokens():
    return (torch.randint(20, (2, 7)),)


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), lambda: (torch.randn(5, 6),)),
    "convolutions": (convolutions, lambda: (torch.randn(2, 3, 12, 12),)),
    "convolutions, of inputs": (convolutions, lambda: (torch.randn(2, 3, 12, 12, requires_grad=True),)),
    "transformer": (Block, tokens),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True),
        lambda: (torch.randn(2, 7, 16),),
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 3)), tokens),
    "frozen": (frozen, lambda: (torch.randn(5, 6),)),
    "shared": (shared, lambda: (torch.randn(5, 4, 6),)),
    "recurrent": (lambda: First(nn.GRU(6, 8)), lambda: (torch.randn(5, 4, 6),)),
}


class First(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def built(name):
    model, inputs = MODELS[name]
    model, inputs = model(), inputs()
    with torch.no_grad():
        model(*inputs)
    return model, inputs


@pytest.mark.parametrize("name", MODELS)
def test_totals_are_those_of_torch(name):
    model, inputs = built(name)
    expected = counted_by_torch(model, inputs)
    matrix, outside, _ = counted(model, inputs)
    assert (np.nansum(matrix, 0) + outside).tolist() == expected  # NaN are layers that did not run
    assert expected[0] > 0


def test_each_layer_has_its_own():
    matrix, outside, layers = counted(*built("transformer"))
    by_name = dict(zip([type(layer).__name__ for layer in layers], matrix.tolist(), strict=True))
    tokens, width = 2 * 7, 16
    score = 2 * (2 * 2) * 7 * 7 * 8  # of one product in the attention: 2 sequences, 2 heads
    assert matrix[1].tolist() == [2 * tokens * width * 48, 2 * 2 * tokens * width * 48]
    assert matrix[2].tolist() == [2 * 2 * tokens * width * width, 2 * 2 * 2 * tokens * width * width]  # called twice
    assert by_name["Embedding"] == by_name["LayerNorm"] == [0, 0]
    assert outside.tolist() == [2 * score, 5 * score]


def test_layers_that_did_not_run_are_not_a_number():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    matrix, _, _ = counted(Spare(), (torch.randn(2, 3),))
    np.testing.assert_array_equal(matrix, [[36, 36], [math.nan, math.nan]])


def test_layers_that_no_gradient_reached_did_nothing_on_the_way_back():
    model, inputs = built("mlp")
    with Hooks(model, FlopCounter()) as hooks:
        step(model, inputs)
        hooks.reached = {model[2]}
        matrix, _ = hooks.take()
    assert matrix[:, 1].tolist() == [0, 0, 2 * 2 * 5 * 12 * 3]


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight.t(), x.t() @ gradient


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return Own.apply(x, self.weight)


class Frozen(nn.Module):
    """Multiplies without gradients, though its weight has one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x):
        with torch.no_grad():
            distances = x @ x.t()
        return x * self.weight + distances.sum()


@torch.library.custom_op("neuraldbg_tests::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Library(nn.Module):
    def forward(self, x):
        return double(x.detach()) + x


UNKNOWN = {
    "LSTM": (lambda: First(nn.LSTM(6, 8)), (5, 4, 6), [math.nan, math.nan]),
    "Bilinear": (lambda: Pair(nn.Bilinear(6, 6, 3)), (5, 6), [math.nan, math.nan]),
    "another library": (Library, (5, 6), [math.nan, math.nan]),
    "custom function": (Custom, (5, 6), [2 * 5 * 6 * 4, math.nan]),
    "without gradients": (Frozen, (5, 6), [2 * 5 * 6 * 5, 0]),
}


class Pair(First):
    def forward(self, x):
        return self.layer(x, x)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_formula_tells_is_not_a_number(name):
    model, shape, expected = UNKNOWN[name]
    model = model()
    matrix, outside, layers = counted(model, (torch.randn(shape, requires_grad=True),))
    np.testing.assert_array_equal(matrix, [expected])
    assert outside.tolist() == [0, 0]
    assert len(layers) == 1


@pytest.fixture
def opened(monkeypatch):
    """The modules for which operations were listened to, one after the other."""
    opened = []
    enter = _Counting.__enter__

    def record(self):
        opened.append(self.calls[-1].module)
        return enter(self)

    monkeypatch.setattr(_Counting, "__enter__", record)
    return opened


def test_what_was_counted_is_not_counted_again(opened):
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    small, large = (torch.randn(5, 6),), (torch.randn(9, 6),)
    with Hooks(model, FlopCounter()) as hooks:
        taken = []
        for inputs in (small, small, large, small):
            step(model, inputs)
            taken.append(hooks.take()[0].tolist())
    assert opened == [model, model]
    assert taken[0] == taken[1] == taken[3] == counted(model, small)[0].tolist()
    assert taken[2] == counted(model, large)[0].tolist() != taken[0]


def test_a_layer_that_is_frozen_later_is_counted_again(opened):
    model, inputs = built("mlp")
    with Hooks(model, FlopCounter()) as hooks:
        step(model, inputs)
        before = hooks.take()[0]
        model[2].requires_grad_(False)
        step(model, inputs)
        after = hooks.take()[0]
    assert opened == [model, model]
    assert before[2].tolist() == [360, 720]
    assert after[2].tolist() == [360, 360]


def test_only_the_layer_with_other_shapes_is_counted_again(opened):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.times = nn.Linear(4, 4), nn.Linear(4, 4), 1

        def forward(self, x):
            return self.second(self.first(x).repeat(self.times, 1))

    model, inputs = Growing(), (torch.randn(3, 4),)
    with Hooks(model, FlopCounter()) as hooks:
        step(model, inputs)
        hooks.take()
        model.times = 2
        step(model, inputs)
        matrix, _ = hooks.take()
    assert opened == [model, model.second]
    assert matrix[:, 0].tolist() == [2 * 3 * 4 * 4, 2 * 6 * 4 * 4]


def test_inputs_that_cannot_be_seen_are_counted_each_time(opened):
    class Named(nn.Module):
        def forward(self, *, x):
            return x @ x.t()

    model = Named()
    with Hooks(model, FlopCounter()) as hooks:
        for rows in (3, 5):
            model(x=torch.randn(rows, 4))
            assert hooks.take()[0][0].tolist() == [2 * rows * 4 * rows, 0]
    assert opened == [model, model]


def test_the_memory_of_shapes_has_an_end():
    model, counter = nn.Linear(2, 2), FlopCounter()
    with Hooks(model, counter) as hooks:
        for rows in range(1, SHAPES_KEPT + 3):
            step(model, (torch.randn(rows, 2),))
            assert hooks.take()[0].tolist() == [[rows * 8, rows * 8]]
    assert len(counter._known[model]) == 2
    assert len(counter._known) == 1
    del model, hooks
    assert len(counter._known) == 0


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(6, 6)
        self.inside = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(checkpoint(self.inside, self.first(x), use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_repeats_counts_once(reentrant):
    model = Checkpointed(reentrant=reentrant)
    inputs = (torch.randn(5, 6),)
    plain = nn.Sequential(model.first, model.inside, model.last)
    matrix, outside, _ = counted(plain, inputs)
    with Hooks(model, FlopCounter()) as hooks:
        for _ in range(3):
            step(model, inputs)
            found, outside_found = hooks.take()
            np.testing.assert_array_equal(found, matrix)
            np.testing.assert_array_equal(outside_found, outside)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_model_that_is_checkpointed_as_a_whole_counts_once(reentrant):
    model, inputs = built("mlp")
    matrix, _, _ = counted(model, inputs)
    inputs[0].requires_grad_()
    with_inputs, _, _ = counted(model, inputs)
    with Hooks(model, FlopCounter()) as hooks:
        for _ in range(2):
            with torch.no_grad():
                model(*inputs)  # evaluation
            checkpoint(model, *inputs, use_reentrant=reentrant).sum().backward()
            found, _ = hooks.take()
            np.testing.assert_array_equal(found, with_inputs)
    assert with_inputs.sum() > matrix.sum()


def test_passes_without_gradients_are_left_aside():
    model, inputs = built("transformer")
    with Hooks(model, FlopCounter()) as hooks:
        step(model, inputs)
        with torch.no_grad():
            model(*inputs)
        matrix, outside = hooks.take()
    expected, outside_expected, _ = counted(model, inputs)
    np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_array_equal(outside, outside_expected)


def test_autocast_changes_nothing():
    model, inputs = built("mlp")
    expected, _, _ = counted(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found, _, _ = counted(model, inputs)
    np.testing.assert_array_equal(found, expected)


class Listening(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.heard = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.heard.append(func)
        return func(*args, **(kwargs or {}))


def test_a_mode_of_the_user_around_the_step_hears_what_it_hears_without():
    model, inputs = built("mlp")
    expected, _, _ = counted(model, inputs)
    with Listening() as plain:
        step(model, inputs)
    with Listening() as watched:
        found, _, _ = counted(model, inputs)
    assert watched.heard == plain.heard
    np.testing.assert_array_equal(found, expected)


def test_a_mode_that_a_hook_of_the_user_opens_and_closes_is_left_in_place():
    model, inputs = built("mlp")
    mode = Listening()

    def end(*_):
        torch.zeros(1)
        mode.__exit__(None, None, None)

    with Hooks(model, FlopCounter()) as hooks:
        model.register_forward_pre_hook(lambda *_: mode.__enter__() and None)
        model.register_forward_hook(end)
        step(model, inputs)
        matrix, _ = hooks.take()
        heard = len(mode.heard)
        assert mode.heard[-1] is aten.zeros.default
        assert _get_current_dispatch_mode_stack() == []
        step(model, inputs)
        np.testing.assert_array_equal(hooks.take()[0], matrix)
    assert len(mode.heard) == 2 * heard > 0
    np.testing.assert_array_equal(matrix, counted(model, inputs)[0])


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        x = self.layer(x)
        if self.error is not None:
            raise self.error
        return x @ x.t()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_forward_pass_that_fails_is_counted_when_it_succeeds(error):
    model, inputs = Failing(error()), (torch.randn(3, 4),)
    with Hooks(model, FlopCounter()) as hooks:
        with pytest.raises(error):
            step(model, inputs)
        assert hooks.take()[1].tolist() == [0, 0]
        assert _get_current_dispatch_mode_stack() == []
        model.error = None
        step(model, inputs)
        _, outside = hooks.take()
    assert outside.tolist() == [2 * 3 * 4 * 3, 2 * 2 * 3 * 4 * 3]


def test_a_pass_within_the_handling_of_an_error_is_counted():
    model, inputs = built("mlp")
    with Hooks(model, FlopCounter()) as hooks:
        try:
            int("many")
        except ValueError:
            step(model, inputs)
        assert np.isfinite(hooks.take()[0]).all()


def test_a_layer_that_calls_itself_counts_each_call():
    class Recursive(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x, times=3):
            x = x @ self.weight
            return self(x, times - 1) if times > 1 else x

    model, inputs = Recursive(), (torch.randn(2, 4, requires_grad=True),)
    matrix, _, _ = counted(model, inputs)
    assert [matrix[0].tolist()] == [counted_by_torch(model, inputs)]


def test_a_formula_that_does_not_fit_reaches_nobody(monkeypatch):
    model, inputs = built("mlp")
    monkeypatch.setitem(torch.utils.flop_counter.flop_registry, aten.addmm, lambda *_, **__: 1 / 0)
    matrix, _, _ = counted(model, inputs)
    np.testing.assert_array_equal(matrix, [[math.nan, math.nan], [0, 0], [math.nan, math.nan]])


def test_a_compiled_part_is_not_counted():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = Failing(None)
    compiled.compile(backend="aot_eager", fullgraph=True)
    model, inputs = nn.Sequential(compiled, nn.Linear(5, 4)), (torch.randn(5, 4),)

    class Quiet(Hooks):
        def enter(self, module, inputs):
            if not torch.compiler.is_compiling():
                super().enter(module, inputs)

        def leave(self, module, inputs, output):
            if not torch.compiler.is_compiling():
                super().leave(module, inputs, output)

    with Quiet(model, FlopCounter()) as hooks:
        step(model, inputs)
        matrix, outside = hooks.take()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # compiled it was
    np.testing.assert_array_equal(matrix, [[math.nan, math.nan], [200, 400]])
    assert np.isnan(outside).all()


@pytest.mark.parametrize("name", [*MODELS, "LSTM"])
def test_training_is_the_same_to_the_last_bit(name):
    def train(*, watched):
        torch.manual_seed(1)
        model, inputs = (First(nn.LSTM(6, 8)), (torch.randn(5, 4, 6),)) if name == "LSTM" else built(name)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        outputs = []
        hooks = Hooks(model, FlopCounter())
        for _ in range(3):
            if watched:
                with hooks:
                    outputs.append(step(model, inputs))
                    hooks.counter._known.clear()
            else:
                outputs.append(step(model, inputs))
            optimizer.step()
        return [*outputs, *model.state_dict().values(), torch.get_rng_state()]

    plain, watched = train(watched=False), train(watched=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
