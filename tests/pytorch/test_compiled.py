"""Compiled models are seen into without a graph break, a second recompilation, or another bit in what is trained."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from neural.session.statistics import COUNT, MEAN, merge, reference_row
from neural_callbacks.pytorch import compiled, stand_ins
from neural_callbacks.pytorch.compiled import CompiledTaps, is_in_use
from neural_callbacks.pytorch.layout import layers_of

INDUCTOR = ["inductor"] if shutil.which(os.environ.get("CXX", "g++")) else []


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is compiled yet; what importing inductor warns of is torch's own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._inductor.compile_fx  # noqa: PLC0415
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()
    assert stand_ins._taps == {}
    assert stand_ins._open_gates == []


class Rows:
    """An observer that keeps a row for each tensor that it is shown, and the shapes of a layer's inputs."""

    def __init__(self):
        self.rows = {}
        self.input_shapes = {}

    def eager(self, module, _inputs, output):
        self._add("eager", module, output[0] if isinstance(output, tuple) else output)

    def activation(self, module, values, input_shapes):
        self.input_shapes[module] = input_shapes
        self._add("activations", module, values)

    def activation_gradient(self, module, gradient):
        self._add("activation_gradients", module, gradient)

    def _add(self, kind, module, tensor):
        self.rows.setdefault((kind, module), []).append(reference_row(tensor.detach().float()))

    def merged(self):
        return {key: merge(np.stack(rows))[0] for key, rows in self.rows.items()}

    def times(self, kind, module):
        return len(self.rows.get((kind, module), []))


class Net(nn.Module):
    """Two linear layers with what goes between."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.25)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.dropout(self.relu(self.first(x))))


class Blocks(nn.Module):
    """Six blocks that are alike."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x):
        return x + self.down(functional.gelu(self.up(x)))


class Counting:
    """A backend that runs the graph as it is and counts how many there are."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _inputs):
        self.graphs += 1
        return graph.forward


def step(call, x, optimizer=None):
    """One step of training; the loss."""
    loss = call(x).square().mean()
    loss.backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def seen(taps, model, *calls, observer=None):
    """Run `calls` as a sampled step; what was seen in it."""
    rows = observer or Rows()
    taps.attach([module for _, module in layers_of(model)], rows)
    for call in calls:
        call()
    taps.detach()
    return rows


def as_in_place(model, **options):
    model.compile(**options)
    return model, model


def as_wrapped(model, **options):
    wrapped = torch.compile(model, **options)
    return wrapped, wrapped


def as_wrapped_elsewhere(model, **options):
    return model, torch.compile(model, **options)


WAYS = {"in place": as_in_place, "wrapped": as_wrapped, "wrapped elsewhere": as_wrapped_elsewhere}


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_one_graph_for_plain_steps_and_one_for_sampled_ones(way, fullgraph):
    backend, x = Counting(), torch.randn(5, 6)
    model = Net()
    given, call = WAYS[way](model, backend=backend, fullgraph=fullgraph)
    taps = CompiledTaps(given)
    taps.watch()
    graphs = []
    for number in range(8):
        if number % 3 == 1:
            rows = seen(taps, given, lambda: step(call, x))
            assert [rows.times(kind, model.first) for kind in ("activations", "activation_gradients")] == [1, 1]
        else:
            step(call, x)
        graphs.append(backend.graphs)
    taps.close()
    step(call, x)
    assert [*graphs, backend.graphs] == [1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert not torch._dynamo.utils.counters["graph_break"]
    assert taps.notice == compiled.WITHHELD


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_blocks_that_are_alike_share_their_graphs_under_taps_too():
    backend, x = Counting(), torch.randn(5, 6)
    model = Blocks()
    for block in model.blocks:
        block.compile(backend=backend, fullgraph=True)
    taps = CompiledTaps(model)
    taps.watch()
    step(model, x)
    plain = backend.graphs
    for _ in range(2):
        rows = seen(taps, model, lambda: step(model, x))
        assert backend.graphs == 2 * plain
    assert all(rows.times("activation_gradients", block.up) == 1 for block in model.blocks)
    assert len({row[0][MEAN] for row in rows.rows.values()}) == 24
    taps.close()


def test_a_model_that_was_called_before_is_seen_from_its_second_sampled_step_on():
    model, x = Net(), torch.randn(5, 6)
    call = torch.compile(model, backend=(backend := Counting()), fullgraph=True)
    step(call, x)
    taps = CompiledTaps(model)
    assert not seen(taps, model, lambda: step(call, x)).rows
    assert taps.notice is None
    assert seen(taps, model, lambda: step(call, x)).rows
    taps.close()
    assert backend.graphs == 2


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def measured_by_hand(model, x, layers):
    """The rows of the outputs of `layers` and their gradients, as autograd gives them to an eager model."""
    rows = {}

    def look(module, _inputs, output):
        rows["activations", module] = reference_row(output.detach())
        output.register_hook(lambda g: rows.__setitem__(("activation_gradients", module), reference_row(g)))

    handles = [layer.register_forward_hook(look) for layer in layers]
    model(x).square().mean().backward()
    for handle in handles:
        handle.remove()
    return rows


@pytest.mark.parametrize("backend", ["eager", "aot_eager", *INDUCTOR])
def test_rows_are_those_of_the_same_step_in_eager(backend):
    model, x = without_dropout(Net()), torch.randn(5, 6)
    call = torch.compile(model, backend=backend, fullgraph=True)
    taps = CompiledTaps(model)
    taps.watch()
    step(call, x)
    rows = seen(taps, model, lambda: step(call, x))
    taps.close()
    expected = measured_by_hand(model, x, [model.first, model.last])
    got = rows.merged()
    assert got.keys() == expected.keys()
    for key, row in expected.items():
        np.testing.assert_allclose(got[key], row, rtol=1e-4, atol=1e-7)
    assert rows.input_shapes == {model.first: ((5, 6),), model.last: ((5, 12),)}


class Attention(nn.Module):
    """Two layers of attention, normalisation, an activation and dropout over embedded vectors."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(6, 16)
        self.attention = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.dense = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.embedding(x)
        for attention, norm, dense in zip(self.attention, self.norms, self.dense, strict=True):
            x = norm(x + self.dropout(attention(x, x, x, need_weights=False)[0]))
            x = x + self.dropout(functional.silu(dense(x)))
        return self.head(x.mean(1))


class Convolution(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.SiLU(),
            nn.GroupNorm(1, 4),
            nn.Flatten(),
            nn.Linear(4 * 64, 3),
        )


TRAINED = {
    "net": (Net, lambda: torch.randn(16, 6)),
    "convolution": (Convolution, lambda: torch.randn(16, 1, 8, 8)),
    "attention": (Attention, lambda: torch.randn(16, 7, 6)),
}


def train(problem, backend, *, every=None, half=False, batches=(16,), observer=None):
    """Train from seed 1; everything in which two trainings can differ, and the taps."""
    make, inputs = TRAINED[problem]
    torch.compiler.reset()
    torch.manual_seed(1)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    call = torch.compile(model, backend=backend, fullgraph=True)
    taps = CompiledTaps(call)
    losses = []
    if every is not None:
        taps.watch()
    for number in range(12):
        if every is not None and number % every == 0:
            taps.attach([module for _, module in layers_of(call)], observer or Rows())
        size = batches[number % len(batches)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(call(inputs()[:size]), torch.randint(3, (size,)))
        loss.backward()
        taps.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    taps.close()
    return [*losses, *model.state_dict().values(), torch.get_rng_state()], taps


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("backend", "problem", "half"),
    [
        ("eager", "net", False),
        ("eager", "convolution", True),
        ("aot_eager", "net", True),
        ("aot_eager", "convolution", False),
        ("aot_eager", "attention", True),
    ],
)
def test_training_is_the_same_to_the_last_bit(problem, backend, half):
    plain, _ = train(problem, backend, half=half)
    watched, taps = train(problem, backend, half=half, every=2)
    assert taps.sightings.any
    assert same(plain, watched)


@pytest.mark.parametrize("backend", INDUCTOR)
@pytest.mark.parametrize(("problem", "half"), [("convolution", True), ("attention", False)])
def test_training_is_the_same_where_the_compiler_fuses(problem, backend, half):
    plain, _ = train(problem, backend, half=half)
    watched, taps = train(problem, backend, half=half, every=2)
    assert taps.sightings.any
    assert same(plain, watched)


@pytest.mark.parametrize(
    ("backend", "every"), [("aot_eager", 1), ("aot_eager", 3), ("aot_eager", 4), *((name, 2) for name in INDUCTOR)]
)
def test_batches_that_differ_in_size_end_it_and_training_is_the_same(backend, every):
    batches = (16, 16, 16, 5)
    plain, _ = train("net", backend, batches=batches)
    watched, taps = train("net", backend, batches=batches, every=every)
    assert same(plain, watched)
    assert taps.notice == compiled.VARYING


def test_an_observer_that_disturbs_is_seen():
    class Disturbing(Rows):
        def activation(self, module, values, input_shapes):
            super().activation(module, values, input_shapes)
            values.mul_(1 + torch.finfo(torch.float32).eps)

    plain, _ = train("net", "aot_eager")
    watched, _ = train("net", "aot_eager", every=2, observer=Disturbing())
    assert not same(plain, watched)


class Repeated(nn.Module):
    """One layer, three times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


class Checkpointed(Blocks):
    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


class Mapped(Net):
    def forward(self, x):
        return torch.vmap(lambda row: self.relu(self.first(row)))(x)


class Differentiated(Net):
    """Adds to its output the gradient of its first layer, as meta-learning does."""

    def forward(self, x):
        def loss(parameters):
            return torch.func.functional_call(self.first, parameters, (x,)).square().mean()

        return super().forward(x) + torch.func.grad(loss)(dict(self.first.named_parameters()))["bias"].mean()


@pytest.mark.parametrize(
    ("make", "layer", "forward", "backward"),
    [
        (Repeated, "layer", 3, 3),
        (Checkpointed, "blocks.0.up", 1, 1),
        (Mapped, "first", 1, 0),
        (Differentiated, "first", 2, 2),
    ],
)
def test_a_layer_is_seen_as_often_as_it_runs(make, layer, forward, backward):
    model, x = make(), torch.randn(5, 6)
    call = torch.compile(model, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(call)
    taps.watch()
    step(call, x)
    rows = seen(taps, call, lambda: step(call, x))
    taps.close()
    module = model.get_submodule(layer)
    assert [rows.times(kind, module) for kind in ("activations", "activation_gradients")] == [forward, backward]


def test_accumulated_gradients_and_passes_before_one_backward_are_all_seen():
    model = without_dropout(Net())
    call = torch.compile(model, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(call)
    taps.watch()
    x, y = torch.randn(5, 6), torch.randn(5, 6)
    step(call, x)
    apart = seen(taps, call, lambda: step(call, x), lambda: step(call, y))

    def both_at_once():
        loss = call(x).square().mean() + call(y).square().mean()
        loss.backward()

    together = seen(taps, call, both_at_once)
    taps.close()
    expected = measured_by_hand(model, x, [model.first])
    other = measured_by_hand(model, y, [model.first])
    for rows in (apart, together):
        for key, row in rows.merged().items():
            if key[1] is model.first:
                both = merge(np.stack([expected[key], other[key]]))[0]
                np.testing.assert_allclose(row, both, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_what_runs_outside_of_the_compiled_part_is_shown_as_it_is():
    model, x = Net(), torch.randn(5, 6)
    model.last = torch.compile(model.last, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(model)
    taps.watch()
    first = seen(taps, model, lambda: step(model, x))
    second = seen(taps, model, lambda: step(model, x))
    taps.close()
    eager = {("eager", module) for module in (model.first, model.relu, model.dropout)}
    assert set(first.rows) == eager
    compiled_layer = model.last._orig_mod
    assert set(second.rows) == {
        *eager,
        ("activations", compiled_layer),
        ("activation_gradients", compiled_layer),
    }


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_what_is_not_compiled_without_taps_is_not_with_them():
    backend, x = Counting(), torch.randn(5, 4, 6)
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    layer.compile(backend=backend)  # torch does not begin to compile in its own modules
    excluded = Net()
    excluded.last = torch.compiler.disable(excluded.last)
    model = nn.Sequential(layer, excluded)
    excluded.compile(backend=backend)
    step(model, x)
    plain = backend.graphs
    taps = CompiledTaps(model)
    seen(taps, model, lambda: step(model, x))
    rows = seen(taps, model, lambda: step(model, x))
    taps.close()
    assert (plain, backend.graphs) == (1, 2)
    assert rows.times("eager", layer.linear1) == rows.times("eager", excluded.last._orig_mod) == 1


def test_evaluation_in_a_sampled_step_runs_what_it_always_runs():
    backend, x = Counting(), torch.randn(5, 6)
    model = Net()
    call = torch.compile(model, backend=backend, fullgraph=True)

    def evaluate():
        call.eval()
        with torch.no_grad():
            call(torch.randn(3, 6))
        call.train()

    step(call, x)
    evaluate()
    plain = backend.graphs
    taps = CompiledTaps(call)
    taps.watch()
    step(call, x)
    rows = seen(taps, call, evaluate, lambda: step(call, x), evaluate)
    taps.close()
    assert backend.graphs == plain + 1
    assert rows.rows["activations", model.first][0][COUNT] == 60
    assert rows.times("activations", model.first) == 1


def test_a_step_in_which_shapes_change_is_known_to_be_incomplete():
    model = Net()
    call = torch.compile(model, backend="aot_eager")
    taps = CompiledTaps(call)
    taps.watch()
    step(call, torch.randn(5, 6))
    seen(taps, call, lambda: step(call, torch.randn(5, 6)))
    assert (taps.was_cut_short, taps.notice) == (False, compiled.WITHHELD)
    rows = seen(taps, call, lambda: step(call, torch.randn(5, 6)), lambda: step(call, torch.randn(4, 6)))
    assert rows.times("activations", model.first) == 1
    assert (taps.was_cut_short, taps.notice) == (True, compiled.VARYING)
    assert not seen(taps, call, lambda: step(call, torch.randn(5, 6))).rows
    taps.close()


@pytest.mark.parametrize("make", [Net, lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU())])
def test_what_is_compiled_by_way_of_a_function_is_not_touched(make):
    model, x = make(), torch.randn(5, 6)

    def by_way(x):
        return model(x)

    call = torch.compile(by_way, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(model)
    taps.watch()
    for _ in range(3):
        assert not seen(taps, model, lambda: step(call, x)).rows
        step(call, x)
    taps.close()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert taps.notice == compiled.UNGATED


def test_a_graph_that_is_kept_is_not_seen_in_later_steps():
    model, x = without_dropout(Net()), torch.randn(5, 6)
    call = torch.compile(model, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(call)
    taps.watch()
    step(call, x)
    kept = []
    first = seen(taps, call, lambda: kept.append(call(x).sum()))
    later = seen(taps, call, kept[0].backward)
    taps.close()
    assert first.times("activations", model.first) == 1
    assert (later.rows, first.times("activation_gradients", model.first)) == ({}, 0)


def attributes(model):
    return [(name, set(vars(module))) for name, module in model.named_modules()]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_can_be_copied_pickled_and_saved_in_a_sampled_step_and_nothing_is_left(way):
    model, x = without_dropout(Net()), torch.randn(5, 6)
    given, call = WAYS[way](model, backend="aot_eager")
    before = attributes(given)
    taps = CompiledTaps(given)
    taps.watch()
    step(call, x)
    twins = []

    def copy_it():
        step(call, x)
        torch.save(model, buffer := io.BytesIO())
        pickled = pickle.dumps(model)
        assert b"neural_callbacks" not in pickled + buffer.getvalue()
        twins.extend([copy.deepcopy(model), pickle.loads(pickled)])  # noqa: S301 - from two lines above

    seen(taps, given, copy_it)
    taps.close()
    assert attributes(given) == before
    for twin in twins:
        rows = {name: p.clone() for name, p in twin.named_parameters()}
        with torch.no_grad():
            twin.first.weight.zero_()
            twin.first.bias.zero_()
            twin.last.weight.zero_()
        assert torch.equal(twin(x), rows["last.bias"].expand(5, 3))  # its own weights, not those it was copied from
        assert pickle.dumps(twin)
        copy.deepcopy(twin)(x)
    assert model.first.weight.abs().sum() > 0


def test_a_forward_that_the_user_put_on_a_module_runs_and_stays():
    model, x = Net(), torch.randn(5, 6)
    own = model.first.forward

    def doubled(x):
        return 2 * own(x)

    model.first.forward = doubled
    call = torch.compile(model, backend="aot_eager", fullgraph=True)
    taps = CompiledTaps(call)
    taps.watch()
    step(call, x)
    rows = seen(taps, call, lambda: step(call, x))
    with torch.no_grad():
        expected = reference_row(2 * own(x))
    np.testing.assert_allclose(rows.rows["activations", model.first][0], expected, rtol=1e-5)
    taps.attach([model.last], Rows())
    model.last.forward = replaced = type(model.last).forward.__get__(model.last)
    taps.close()
    assert model.first.forward is doubled
    assert model.last.forward is replaced


def test_replicas_and_scripts_are_left_alone():
    inner = Net()
    model = nn.ModuleList([nn.DataParallel(inner), torch.jit.ScriptModule(), nn.Linear(2, 2)])
    taps = CompiledTaps(model)
    taps.attach(list(model.modules()), Rows())
    assert ["forward" in vars(module) for module in (*inner.modules(), *model)] == [*[False] * 7, True]
    taps.close()


@contextlib.contextmanager
def stance():
    with torch.compiler.set_stance("eager_on_recompile"):
        yield


OBSTACLES = {
    "no more compiling": (compiled.SETTLED, stance),
    "error_on_recompile": (compiled.SETTLED, lambda: torch._dynamo.config.patch(error_on_recompile=True)),
    "compiled_autograd": (compiled.AUTOGRAD, lambda: torch._dynamo.config.patch(compiled_autograd=True)),
    "another torch": (compiled.UNSUPPORTED, pytest.MonkeyPatch.context),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_where_it_cannot_be_done_nothing_is_touched_and_it_is_said(obstacle):
    sentence, circumstances = OBSTACLES[obstacle]
    model, x = Net(), torch.randn(5, 6)
    call = torch.compile(model, backend="aot_eager")
    taps = CompiledTaps(call)
    taps.watch()
    step(call, x)
    with circumstances() as patch:
        if patch is not None and hasattr(patch, "setattr"):
            patch.setattr(compiled, "CAN_OBSERVE", False)
        taps.attach([model.first], Rows())
        assert "forward" not in vars(model.first)
        assert taps.notice == sentence
    taps.close()


def test_autotuned_models_are_not_seen_into():
    model = torch.compile(Net(), mode="max-autotune-no-cudagraphs")
    taps = CompiledTaps(model)
    taps.attach([model._orig_mod.first], Rows())
    assert "forward" not in vars(model._orig_mod.first)
    assert taps.notice == compiled.TUNED
    taps.close()


def test_a_function_that_is_compiled_again_and_again_is_left_alone_before_torch_gives_it_up():
    x = torch.randn(5, 6)
    model = torch.compile(nn.Sequential(nn.Linear(6, 6)), backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=2):
        taps = CompiledTaps(model)
        taps.watch()
        step(model, x)
        assert seen(taps, model, lambda: step(model, x)).rows
        assert taps.notice == compiled.CROWDED
        taps.attach(list(model.modules()), Rows())
        assert not taps.is_attached
    taps.close()


def test_a_model_cut_into_the_buckets_of_data_parallel_training_trains_on_unseen(tmp_path):
    class Wide(nn.Sequential):
        def __init__(self):
            super().__init__(*(nn.Linear(600, 600) for _ in range(4)))

        def forward(self, x):
            return super().forward(x)

    def losses(*, watched):
        torch.compiler.reset()
        torch.manual_seed(1)
        model = DistributedDataParallel(Wide(), bucket_cap_mb=2)
        call = torch.compile(model, backend="aot_eager")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        taps = CompiledTaps(call)
        found = []
        for _ in range(3):
            if watched:
                taps.attach([module for _, module in layers_of(model)], Rows())
            found.append(step(call, torch.randn(3, 600), optimizer))
            taps.detach()
        taps.close()
        return found, taps.notice

    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        plain, _ = losses(watched=False)
        watched, notice = losses(watched=True)
    finally:
        distributed.destroy_process_group()
    assert same(plain, watched)
    assert notice == compiled.IN_PARTS


def test_torch_compile_is_noticed_wherever_it_is_used():
    model = Net()
    assert not is_in_use(model)
    model.compile(backend="eager")
    assert is_in_use(model)
    assert is_in_use(nn.Sequential(torch.compile(Net(), backend="eager")))
    torch.compiler.reset()
    assert not is_in_use(Net())
    torch.compile(lambda x: x, backend="eager")
    assert is_in_use(Net())


def test_global_hooks_make_a_wrapped_model_warn_and_taps_do_not():
    model, x = Net(), torch.randn(5, 6)
    call = torch.compile(model, backend=(backend := Counting()), fullgraph=True)
    step(call, x)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=r"Using `torch.compile\(module\)` when there are global hooks"):
        step(call, x)
    handle.remove()
    with_hook = backend.graphs
    taps = CompiledTaps(model)
    taps.watch()
    for _ in range(3):
        seen(taps, model, lambda: step(call, x))
    taps.close()
    assert backend.graphs == with_hook + 1
