"""Training on JAX is the same to the last bit with and without the callback; this test can tell when it is not.

Each model is compared over measured steps and over steps that the sentinel looks at, in turn.
"""

import pytest

NEEDS_NONE = "Training needs no gradient by the outputs of {}, so none is recorded."
INSIDE = (
    "The activations of {} are not recorded: it runs inside a loop, a branch or another function that JAX transforms "
    "by itself."
)

# The layers recorded, and the notices.
EXPECTED = {
    "softmax": (["dense_1", "dense"], []),
    "sigmoid": (["dense_1", "dense"], []),
    "convolution": (
        ["reshape", "conv2d", "batch_normalization", "activation", "dropout", "flatten", "dense"],
        [NEEDS_NONE.format("reshape")],
    ),
    "functional": (["dense", "b", "a"], []),
    "subclassed": (["sequential/dense", "sequential/layer_normalization", "dense_1"], []),
    "mixed_precision": (["dense", "dense_1"], []),
    "recurrent": (["reshape", "dense", "masked/masking", "masked", "lstm", "dense_1"], [NEEDS_NONE.format("reshape")]),
    "attention": (
        [
            "reshape",
            *(f"multi_head_attention/{name}" for name in ("query", "key", "value", "attention_output")),
            "layer_normalization",
            "global_average_pooling1d",
            "dense",
        ],
        [NEEDS_NONE.format("reshape")],
    ),
    "checkpointed": (
        ["dense_2", "dense", "dense_1"],
        [INSIDE.format("dense")],
    ),
    **{
        f"within_{transformation}": (["dense_2", "within/dense", "dense_1"], [INSIDE.format("within/dense")])
        for transformation in ("jit", "vmap", "grad")
    },
    "several_steps_per_execution": (["dense_1", "dense"], []),
    "eager": (["dense_1", "dense"], []),
}
# A process starts slowly, and so do some models in it.
PROCESSES = [
    ("softmax", "sigmoid"),
    ("convolution", "several_steps_per_execution"),
    ("functional", "subclassed"),
    ("recurrent", "mixed_precision"),
    ("attention", "eager"),
    ("checkpointed", "within_jit"),
    ("within_vmap", "within_grad"),
]


@pytest.mark.parametrize("models", PROCESSES, ids="-".join)
def test_training_is_the_same_to_the_last_bit(models, on_jax):
    assert on_jax("train_twice.py", *models) == {
        model: [True, [0, 2, 4], layers, notices] for model, (layers, notices) in EXPECTED.items() if model in models
    }


def test_training_goes_on_where_nothing_can_pass_an_output_on(on_jax):
    is_same, steps, _, notices = on_jax("train_twice.py", "within_jvp")["within_jvp"]
    assert (is_same, steps) == (True, [0])
    assert notices[0].startswith("NeuralDbg switched the taps in the train step off after an error, training goes on")


def test_a_tap_that_disturbs_is_found(on_jax):
    is_same, *_ = on_jax("train_twice.py", "disturbed", "sigmoid")["sigmoid"]
    assert not is_same
