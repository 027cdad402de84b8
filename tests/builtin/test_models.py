"""Built-in models: shapes, published sizes, heads, and what does not fit."""

import pytest
import torch

from fscore.builtin.models.specs import CNN, MLP, CharLSTM, FemnistCNN, Softmax
from fscore.context import Samples
from fscore.errors import ConfigError


def example(*shape, y=None, tokens=False):
    x = torch.zeros(2, *shape, dtype=torch.int64 if tokens else torch.float32)
    return Samples(x, torch.zeros(2, dtype=torch.int64) if y is None else y)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


CASES = [
    (Softmax(), example(64), 10, (2, 10)),
    (Softmax(), example(1, 8, 8), 10, (2, 10)),
    (MLP(hidden=[7, 5], activation="tanh"), example(64), 10, (2, 10)),
    (FemnistCNN(hidden=16), example(1, 28, 28), 62, (2, 62)),
    (CNN(), example(3, 32, 32), 10, (2, 10)),
    (CharLSTM(hidden=16), example(12, tokens=True), 90, (2, 12, 90)),
]


@pytest.mark.parametrize(("model", "data", "classes", "shape"), CASES)
def test_output_shape(model, data, classes, shape):
    assert tuple(model.build(data, classes)(data.x).shape) == shape


@pytest.mark.parametrize(("model", "data", "classes", "shape"), CASES)
def test_the_default_head_is_the_last_layer(model, data, classes, shape):
    head = model.build(data, classes).get_submodule(model.head)
    assert (type(head), head.out_features) == (torch.nn.Linear, classes)


def test_regression_has_one_output_per_target():
    data = example(5, y=torch.zeros(2, 3))
    assert tuple(MLP().build(data, None)(data.x).shape) == (2, 3)


def test_femnist_cnn_has_the_size_of_leaf():
    assert parameters(FemnistCNN().build(example(1, 28, 28), 62)) == 6_603_710


def test_femnist_cnn_with_512_units_has_the_size_of_mcmahan_2017():
    assert parameters(FemnistCNN(hidden=512).build(example(1, 28, 28), 10)) == 1_663_370


def test_the_small_cnn_has_no_padding():
    assert parameters(CNN().build(example(3, 32, 32), 10)) == (
        896 + 18_496 + (64 * 14 * 14 * 128 + 128) + 1_290
    )


@pytest.mark.parametrize(("model", "side"), [(FemnistCNN(), 4), (CNN(), 6)])
def test_flat_samples_are_refused_by_convolutions(model, side):
    with pytest.raises(ConfigError) as error:
        model.build(example(64), 10)
    assert str(error.value) == (
        f"model.use: '{model.name}' needs images (channels, height, width) of at least {side} pixels, "
        "but the data have samples of shape (64,)"
    )


def test_images_that_leave_nothing_after_pooling_are_refused():
    with pytest.raises(ConfigError) as error:
        CNN().build(example(3, 5, 32), 10)
    assert str(error.value) == (
        "model.use: 'cnn' needs images (channels, height, width) of at least 6 pixels, "
        "but the data have samples of shape (3, 5, 32)"
    )


def test_the_character_model_refuses_features():
    with pytest.raises(ConfigError) as error:
        CharLSTM().build(example(64), 10)
    assert str(error.value) == (
        "model.use: 'char_lstm' needs sequences of integers, but the data have samples of shape (64,) "
        "and type torch.float32"
    )
