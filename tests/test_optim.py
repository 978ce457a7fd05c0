"""Optimisers: torch's semantics, the same bits however the vector is cut, nothing but numbers on the way."""

import math
import tracemalloc
import warnings
from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp import optim
from karp.errors import NotFiniteError, SettingError, ShapeError
from karp.optim import updater as updater_module
from karp.optim.norm import CHUNK
from karp.optim.rules import Vectors
from karp.parameters import Layout

OPTIMIZERS = [
    optim.SGD(0.1),
    optim.SGD(0.1, weight_decay=0.01),
    optim.SGD(0.1, momentum=0.9),
    optim.SGD(0.1, momentum=0.9, weight_decay=0.01, clip_norm=1.0),
    optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    optim.Adam(0.01),
    optim.Adam(0.01, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1, clip_norm=1.0),
    optim.AdamW(0.01),
    optim.AdamW(0.01, betas=(0.0, 0.5), weight_decay=0.2, clip_norm=1.0),
    optim.RMSprop(0.01),
    optim.RMSprop(0.01, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.1, clip_norm=1.0),
]
SCHEDULES = [
    optim.Constant(0.1),
    optim.StepDecay(0.1, step_size=3, gamma=0.5),
    optim.Cosine(0.1, steps=9, min_lr=0.01),
    optim.CosLog(0.1, steps=9),
    optim.InverseScaling(0.1, power_t=0.3),
    optim.WarmUp(0.1, steps=4),
    optim.WarmUp(optim.Cosine(0.1, steps=9), steps=4),
]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def numbers(size: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


def run(optimizer: Any, weights: np.ndarray, steps: int = 5) -> optim.Updater:
    """Some updates on a copy of the weights, against gradients that depend on step and place only."""
    updater = optim.Updater(optimizer, weights.copy())
    for step in range(steps):
        updater.update(numbers(weights.size, weights.dtype.name, seed=step + 1))
    return updater


# --- torch as oracle ------------------------------------------------------------------------------------


def torch_twin(optimizer: Any, weights: Any, torch: Any) -> Any:
    """torch's optimiser of the same name with the same arguments."""
    arguments = {field.name: getattr(optimizer, field.name) for field in fields(optimizer)}
    for own in ("clip_norm", "velocity", "eps_hat"):
        arguments.pop(own, None)
    if not isinstance(arguments["lr"], float):
        arguments["lr"] = 1.0  # its schedule is tested by itself
    return getattr(torch.optim, type(optimizer).__name__)([weights], foreach=False, **arguments)


@each_optimizer
@pytest.mark.parametrize(("dtype", "near"), [("float64", 1e-12), ("float32", 2e-5)])
def test_100_steps_equal_torch(optimizer, dtype, near):
    torch = pytest.importorskip("torch")
    start = numbers(50, dtype)
    theirs = torch.nn.Parameter(torch.tensor(start))
    twin = torch_twin(optimizer, theirs, torch)
    ours = optim.Updater(optimizer, start.copy())
    for step in range(100):
        # Noise and a pull towards 1: the path depends on the weights, as in training.
        noise = numbers(50, dtype, seed=step + 1)
        theirs.grad = (theirs.detach() - 1) + torch.tensor(noise)
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([theirs], optimizer.clip_norm)
        twin.step()
        ours.update((ours.weights - 1) + noise)
    assert dtype == ours.weights.dtype
    np.testing.assert_allclose(ours.weights, theirs.detach().numpy(), rtol=near, atol=near)


def test_defaults_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for ours in (optim.SGD(0.001), optim.Adam(), optim.AdamW(), optim.RMSprop()):
        theirs = getattr(torch.optim, type(ours).__name__)([torch.zeros(1, requires_grad=True)]).defaults
        for field in fields(ours):
            if field.name not in ("clip_norm", "velocity", "eps_hat"):
                assert theirs[field.name] == getattr(ours, field.name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.StepDecay(0.2, 3, gamma=0.5), lambda s, o: s.StepLR(o, 3, gamma=0.5)),
        (optim.Cosine(0.2, 20, min_lr=0.05), lambda s, o: s.CosineAnnealingLR(o, 20, eta_min=0.05)),
        (optim.WarmUp(0.2, 4), lambda s, o: s.LinearLR(o, start_factor=1 / 5, total_iters=4)),
        (
            optim.WarmUp(optim.Cosine(0.2, 16), 4),
            lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 1 / 5, 1.0, 4), s.CosineAnnealingLR(o, 16)], [4]),
        ),
    ],
)
def test_schedules_equal_torch(ours, theirs):
    torch = pytest.importorskip("torch")
    twin = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns about its own call of step()
        schedule = theirs(torch.optim.lr_scheduler, twin)
        for _ in range(21):
            rates.append(twin.param_groups[0]["lr"])
            twin.step()
            schedule.step()
    assert pytest.approx([ours(step) for step in range(21)], rel=1e-12, abs=1e-15) == rates


def test_four_waves_of_a_cosine_over_a_logarithm_are_coslog4():
    steps = 1000
    expected = [0.04 * 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * step / steps))) for step in range(steps)]
    schedule = optim.CosLog(0.04, steps)
    assert pytest.approx(expected, rel=1e-12, abs=1e-15) == [schedule(step) for step in range(steps)]
    assert [0.0, 0.0] == [schedule(steps), schedule(steps + 10)]
    with pytest.raises(SettingError, match="WarmUp: lr must be a number"):
        optim.WarmUp(schedule, 3)  # it starts at 0 itself


def test_inverse_scaling_is_that_of_the_linear_models_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = numbers(30, "float64").reshape(10, 3)
    y = x @ np.array([1.0, -2.0, 3.0])
    theirs = linear_model.SGDRegressor(
        learning_rate="invscaling", eta0=0.1, power_t=0.5, alpha=0, fit_intercept=False, shuffle=False, max_iter=3,
        tol=None,
    ).fit(x, y)  # fmt: skip
    ours = optim.Updater(optim.SGD(optim.InverseScaling(0.1, power_t=0.5)), np.zeros(3))
    for row in [*range(10)] * 3:
        ours.update((x[row] @ ours.weights - y[row]) * x[row])
    np.testing.assert_allclose(theirs.coef_, ours.weights, rtol=1e-12)
    # Its MLPs count samples, once an epoch: this is where they and the formula part.
    mlp = pytest.importorskip("sklearn.neural_network").MLPRegressor(
        hidden_layer_sizes=(2,), solver="sgd", learning_rate="invscaling", learning_rate_init=0.1, power_t=0.5,
        batch_size=5, max_iter=3, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three epochs are too few, it says
        mlp.fit(x, y)
    assert pytest.approx(0.1 / 31**0.5) == mlp._optimizer.learning_rate
    assert pytest.approx(0.1 / 7**0.5) == optim.InverseScaling(0.1)(6)


# --- schedules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_in_an_optimizer_is_its_rates_one_by_one(schedule):
    one = run(optim.SGD(schedule, momentum=0.9), numbers(20), steps=15)
    other = optim.Updater(optim.SGD(0.0, momentum=0.9), numbers(20))
    for step in range(15):
        other.optimizer = optim.SGD(schedule(step), momentum=0.9)
        other.update(numbers(20, seed=step + 1))
    assert one.weights.tobytes() == other.weights.tobytes()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@given(st.integers(0, 10**7))
def test_rates_are_floats_from_zero_to_lr(schedule, step):
    rate = schedule(step)
    assert type(rate) is float
    assert 0 <= rate <= 0.1 * (1 + 1e-15)


# --- cutting never changes bits -------------------------------------------------------------------------


@each_optimizer
@each_dtype
@given(piece=st.integers(1, 40))
def test_pieces_never_change_bits(optimizer, dtype, piece):
    weights = numbers(203, dtype)
    whole = run(optimizer, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater_module, "PIECE", piece * weights.itemsize)
        cut = run(optimizer, weights)
    assert whole.weights.tobytes() == cut.weights.tobytes()
    assert [vector.tobytes() for vector in whole.state.values()] == [
        vector.tobytes() for vector in cut.state.values()
    ]


@each_optimizer
@each_dtype
@given(cuts=st.lists(st.integers(0, 203), max_size=4))
def test_apply_takes_plain_floats_and_any_slices(optimizer, dtype, cuts):
    weights, gradients = numbers(203, dtype), [numbers(203, dtype, seed=step + 1) for step in range(5)]
    state = optimizer.state(weights)
    edges = [0, *sorted(cuts), 203]
    for step, gradient in enumerate(gradients):
        factors = optimizer.prepare(gradient, step)
        assert {float} == {type(factor) for factor in factors}
        for start, stop in pairwise(edges):
            place = slice(start, stop)
            part = Vectors(weights[place], {name: vector[place] for name, vector in state.items()})
            scratch = np.empty(stop - start, dtype), np.empty(stop - start, dtype)
            optimizer.apply(part, gradient[place], factors, scratch, part)
    expected = run(optimizer, numbers(203, dtype))
    assert expected.weights.tobytes() == weights.tobytes()


@each_optimizer
@each_dtype
@pytest.mark.parametrize("piece", [40, 1 << 20])
def test_an_update_by_two_vectors_is_one_by_their_sum(optimizer, dtype, piece, monkeypatch):
    monkeypatch.setattr(updater_module, "PIECE", piece)
    one, two = (optim.Updater(optimizer, numbers(25, dtype)) for _ in range(2))
    for scale in (1, 3):
        left, right = numbers(25, dtype, seed=scale), numbers(25, dtype, seed=-scale % 7)
        one.update(left + right)
        two.update(left, right)
    assert one.weights.tobytes() == two.weights.tobytes()
    assert 2 == two.version


# --- what an update leaves alone ------------------------------------------------------------------------


@each_optimizer
@each_dtype
def test_gaps_stay_positive_zero_and_the_gradient_is_only_read(optimizer, dtype):
    layout = Layout({"a": (3, 7), "b": (5,)}, dtype)
    weights, gradient = layout.zeros(), layout.zeros()
    gaps = np.ones(layout.size, bool)
    for view in layout.views(weights).values():
        view[...] = 1
    gaps = weights == 0
    updater = optim.Updater(optimizer, weights)
    for step in range(10):
        for name, view in layout.views(gradient).items():
            view[...] = numbers(view.size, dtype, seed=step + len(name)).reshape(view.shape)
        before = gradient.tobytes()
        gradient.flags.writeable = False
        updater.update(gradient)
        gradient.flags.writeable = True
        assert before == gradient.tobytes()
    for vector in (weights, *updater.state.values()):
        assert not any(vector[gaps].tobytes())  # the bytes of +0.0, not of -0.0
        assert vector[~gaps].all()


@each_optimizer
def test_no_gradient_and_no_weight_stay_so(optimizer):
    updater = optim.Updater(optimizer, np.zeros(10, np.float32))
    for gradient in (np.zeros(10, np.float32), -np.zeros(10, np.float32)):
        updater.update(gradient)
    assert not any(updater.weights.tobytes())


@each_optimizer
def test_an_update_allocates_nothing(optimizer):
    weights, gradient = numbers(1_000_000), numbers(1_000_000)
    updater = optim.Updater(optimizer, weights)
    updater.update(gradient)
    tracemalloc.start()
    updater.update(gradient)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32_000  # of 4,000,000 bytes of weights


def test_state_holds_what_is_needed():
    weights = numbers(4)
    named = {str(optimizer): sorted(optimizer.state(weights)) for optimizer in OPTIMIZERS}
    assert [
        [],
        [],
        ["momentum"],
        ["momentum"],
        ["momentum"],
        *[["mean", "square"]] * 4,
        ["square"],
        ["momentum", "square"],
    ] == list(named.values())
    for vector in optim.Adam().state(weights).values():
        assert (np.float32, (4,), False) == (vector.dtype, vector.shape, vector.any())


@pytest.mark.parametrize("rate", [np.float64(0.1), np.float32(0.1), 1, np.int64(1)])
def test_a_rate_of_any_kind_becomes_a_python_float(rate):
    optimizer = optim.SGD(rate)
    assert type(optimizer.lr) is float
    assert np.float32 == run(optimizer, numbers(4)).weights.dtype


def test_minus_zero_is_zero():
    optimizer = optim.SGD(-0.0, momentum=-0.0, weight_decay=-0.0)
    signs = [math.copysign(1, number) for number in (optimizer.lr, optimizer.momentum, optimizer.weight_decay)]
    assert [1, 1, 1] == signs


# --- the norm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17])
@each_dtype
def test_norm(size, dtype):
    vector = numbers(size, dtype)
    expected = math.sqrt(math.fsum(float(x) ** 2 for x in vector))
    assert pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12) == optim.norm(vector)


@pytest.mark.parametrize("size", [2, 3 * CHUNK])
def test_norm_of_what_overflows_or_is_not_finite(size):
    for dtype, large in (("float32", 3e38), ("float64", 1e300)):
        vector = np.zeros(size, dtype)
        vector[:2] = large
        assert pytest.approx(large * math.sqrt(2), rel=1e-6) == optim.norm(vector)
        vector[0] = math.inf
        assert math.inf == optim.norm(vector)
        vector[1] = math.nan
        assert math.isnan(optim.norm(vector))


def test_clipping_scales_to_the_norm_and_leaves_shorter_ones_alone():
    gradient = np.array([3.0, 4.0])
    for clip_norm, taken in ((10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])):
        updater = optim.Updater(optim.SGD(1.0, clip_norm=clip_norm), np.zeros(2))
        updater.update(gradient)
        np.testing.assert_allclose(-updater.weights, taken, rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clipping_refuses_what_is_not_finite(bad):
    updater = optim.Updater(optim.Adam(clip_norm=1.0), np.ones(3))
    with pytest.raises(NotFiniteError, match=r"norm is (nan|inf)"):
        updater.update(np.array([1.0, bad, 1.0]))
    assert ([1, 1, 1], 0) == (updater.weights.tolist(), updater.version)
    assert not updater.state["mean"].any()


# --- the updater ----------------------------------------------------------------------------------------


@each_optimizer
def test_an_updater_goes_on_from_its_state(optimizer):
    expected = run(optimizer, numbers(30), steps=6)
    first = run(optimizer, numbers(30), steps=3)
    state = {name: vector.copy() for name, vector in first.state.items()}
    second = optim.Updater(optimizer, first.weights.copy(), state, first.version)
    for step in range(3, 6):
        second.update(numbers(30, seed=step + 1))
    assert expected.weights.tobytes() == second.weights.tobytes()
    assert (expected.version, second.version) == (6, 6)


@each_optimizer
def test_restart_is_a_fresh_state_at_the_version(optimizer):
    scheduled = replace(optimizer, lr=optim.StepDecay(optimizer.lr, step_size=1000))
    updater = run(scheduled, numbers(30))
    updater.weights[...] = numbers(30)
    updater.restart(500)
    for step in range(5):
        updater.update(numbers(30, seed=step + 1))
    assert updater.weights.tobytes() == run(scheduled, numbers(30)).weights.tobytes()
    assert 505 == updater.version
    fresh = optim.Updater(scheduled, numbers(30), version=500)
    for step in range(5):
        fresh.update(numbers(30, seed=step + 1))
    assert fresh.weights.tobytes() == updater.weights.tobytes()


def test_an_updater_refuses_what_does_not_fit():
    updater = optim.Updater(optim.SGD(0.1), np.ones(3, np.float32))
    with pytest.raises(ShapeError, match=r"gradient of shape \(4,\) for weights of shape \(3,\)"):
        updater.update(np.ones(4, np.float32))
    with pytest.raises(SettingError, match="gradient of float64 for weights of float32"):
        updater.update(np.ones(3))
    with pytest.raises(ShapeError):
        updater.update(np.ones((3, 1), np.float32))
    assert ([1, 1, 1], 0) == (updater.weights.tolist(), updater.version)


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        ({}, SettingError, r"state is \['momentum'\], not \[\]"),
        ({"mean": np.ones(3)}, SettingError, r"not \['mean'\]"),
        ({"momentum": np.ones(4)}, ShapeError, r"'momentum' must have shape \(3,\), not \(4,\)"),
        ({"momentum": np.ones(3, np.float32)}, SettingError, "'momentum' must be float64, not float32"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, error, says):
    with pytest.raises(error, match=says):
        optim.Updater(optim.SGD(0.1, momentum=0.9), np.ones(3), state)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sgd", np.zeros(3)), "optimizer must be one of karp.optim, such as .* not 'sgd'"),
        ((optim.SGD, np.zeros(3)), "optimizer must be one of karp.optim"),
        ((optim.SGD(0.1), np.zeros(3), None, -1), "version must be a whole number from 0, not -1"),
        ((optim.SGD(0.1, 0.9), np.zeros(3), 3), "state must be a dict of names and vectors, not 3"),
        ((optim.SGD(0.1, 0.9), np.zeros(3), {"momentum": [1, 2, 3]}), "state must be a dict of names and vectors"),
    ],
)
def test_an_updater_of_something_else_is_refused(arguments, says):
    with pytest.raises(SettingError, match=f"Updater: {says}"):
        optim.Updater(*arguments)


def test_weights_must_be_a_writable_vector_of_floats():
    fixed = np.ones(3)
    fixed.flags.writeable = False
    for weights, error in ((np.ones((3, 1)), ShapeError), (np.ones(3, int), SettingError), (fixed, SettingError)):
        with pytest.raises(error):
            optim.Updater(optim.SGD(0.1), weights)


def test_an_empty_vector_has_versions_too():
    assert 5 == run(optim.Adam(clip_norm=1.0), np.zeros(0)).version


# --- names and numbers ----------------------------------------------------------------------------------


def test_numbers_of_numpy_are_the_numbers_they_are():
    ours = optim.SGD(np.float64(0.5), np.float32(0.5), nesterov=np.True_, clip_norm=np.int64(3))
    assert optim.SGD(0.5, 0.5, nesterov=True, clip_norm=3.0) == ours
    kinds = [type(getattr(ours, name)) for name in ("lr", "momentum", "nesterov", "clip_norm")]
    assert [float, float, bool, float] == kinds
    assert int is type(optim.Cosine(0.1, steps=np.int64(9)).steps)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *(optim.Adam(schedule) for schedule in SCHEDULES)], ids=str)
def test_optimizers_survive_plain_types(optimizer):
    plain = optim.to_dict(optimizer)
    assert optimizer == optim.from_dict(plain)
    assert type(optimizer) is type(optim.from_dict(plain))
    assert plain == optim.to_dict(optim.from_dict(plain))


rates = st.floats(0, 1e6)
portions = st.floats(0, 1, exclude_max=True)
steps = st.integers(1, 2**53)
plain_schedules = (
    st.builds(optim.Constant, rates)
    | st.builds(optim.StepDecay, rates, steps, st.floats(0, 1))
    | st.builds(optim.Cosine, rates, steps)
    | st.builds(optim.InverseScaling, rates, st.floats(0, 10))
)
waves = st.builds(optim.CosLog, rates, steps, st.integers(1, 30))
any_rate = rates | plain_schedules | waves | st.builds(optim.WarmUp, rates | plain_schedules, steps)


@given(
    st.builds(optim.SGD, any_rate, portions, weight_decay=rates, clip_norm=st.none() | st.floats(1e-12, 1e30))
    | st.builds(optim.Adam, any_rate, betas=st.tuples(portions, portions), eps=st.floats(1e-20, 1))
    | st.builds(optim.RMSprop, any_rate, alpha=portions, momentum=portions)
)
def test_all_optimizers_survive_plain_types(optimizer):
    assert optimizer == optim.from_dict(optim.to_dict(optimizer))


SGD = optim.to_dict(optim.SGD(0.1))
ADAM = optim.to_dict(optim.Adam())


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        (None, "an optimiser is a dict with a name, not None"),
        ({"lr": 0.1}, "a dict with a name"),
        (SGD | {"name": "Sgd"}, "one of SGD, Adam, AdamW, RMSprop, not 'Sgd'"),
        (SGD | {"name": ["SGD"]}, r"not \['SGD'\]"),
        (SGD | {"name": "Cosine"}, "not 'Cosine'"),
        (SGD | {"rate": 1}, "SGD: no field 'rate'; the fields are lr, momentum"),
        (SGD | {3: 1}, "SGD: no field 3"),
        ({"name": "SGD", "lr": 0.1}, "SGD: the field momentum is missing"),
        (SGD | {"lr": "0.1"}, "SGD: lr must be a number from 0 to 1e.06, not '0.1'"),
        (SGD | {"lr": True}, "SGD: lr must be .* not True"),
        (SGD | {"lr": None}, "SGD: lr must be .* not None"),
        (SGD | {"lr": -0.1}, "SGD: lr must be .* not -0.1"),
        (SGD | {"lr": math.nan}, "SGD: lr must be .* not nan"),
        (SGD | {"lr": math.inf}, "SGD: lr must be .* not inf"),
        (SGD | {"lr": 10**400}, "SGD: lr must be .* not 1000"),
        (SGD | {"lr": {"name": "Linear"}}, "SGD: lr is one of Constant, .*, not 'Linear'"),
        (SGD | {"lr": {"name": "SGD"}}, "SGD: lr is one of"),
        (SGD | {"lr": {"name": "Cosine", "lr": 0.1, "steps": 0, "min_lr": 0}}, "Cosine: steps must be .* not 0"),
        (SGD | {"lr": {"name": "Cosine", "lr": 0.1, "steps": 2.0, "min_lr": 0}}, "steps must be .* not 2.0"),
        (SGD | {"lr": {"name": "Cosine", "lr": 0.1, "steps": 2, "min_lr": 1}}, "min_lr must be .* 0.1, not 1"),
        (SGD | {"lr": {"name": "Constant", "lr": {"name": "Constant", "lr": 1}}}, "Constant: lr must be a number"),
        (SGD | {"momentum": 1.5}, "SGD: momentum must be a number from 0 to 1, not 1.5"),
        (SGD | {"nesterov": 1}, "SGD: nesterov must be True or False, not 1"),
        (SGD | {"nesterov": True}, "nesterov=True needs a momentum above 0"),
        (SGD | {"weight_decay": -1}, "SGD: weight_decay must be"),
        (SGD | {"clip_norm": 0}, "SGD: clip_norm must be .* not 0"),
        (ADAM | {"betas": 0.9}, "Adam: betas must be two numbers, not 0.9"),
        (ADAM | {"betas": [0.9]}, "Adam: betas must be two numbers"),
        (ADAM | {"betas": [0.9, 1.0]}, "Adam: betas must be a number from 0 to below 1, not 1.0"),
        (ADAM | {"eps": 0.0}, "Adam: eps must be a number from 1e-20 to 1, not 0.0"),
        (ADAM | {"name": "AdamW", "lr": 10.0, "weight_decay": 0.2}, "weight_decay must be at most 1 / lr, not 0.2"),
    ],
)
def test_from_dict_refuses(plain, says):
    with pytest.raises(SettingError, match=says):
        optim.from_dict(plain)


@pytest.mark.parametrize("value", [math.nan, "x", -1])
@pytest.mark.parametrize("made", [*OPTIMIZERS, *SCHEDULES], ids=str)
def test_every_field_is_looked_at(made, value):
    for field in fields(made):
        with pytest.raises(SettingError, match=f"{type(made).__name__}: {field.name} must be"):
            replace(made, **{field.name: value})


def test_a_warm_up_in_a_warm_up_is_refused_however_deep():
    plain: Any = 0.1
    for _ in range(5000):
        plain = {"name": "WarmUp", "lr": plain, "steps": 1}
    with pytest.raises(SettingError, match="WarmUp: lr is one of Constant"):
        optim.from_dict(SGD | {"lr": plain})
    with pytest.raises(SettingError, match="WarmUp: lr must be a number"):
        optim.WarmUp(optim.WarmUp(0.1, 1), 1)


def test_constructors_refuse_with_the_same_words():
    with pytest.raises(SettingError, match=r"SGD: lr must be a number from 0 to 1e\+06, not -1"):
        optim.SGD(-1)
    with pytest.raises(SettingError, match="StepDecay: gamma must be a number from 0 to 1, not 2"):
        optim.StepDecay(0.1, 10, gamma=2)
    with pytest.raises(SettingError, match="SGD: lr must be a number"):
        optim.SGD(lambda step: 0.1)  # only data travels
    with pytest.raises(FrozenInstanceError):
        optim.SGD(0.1).lr = 0.2


# --- from one copy of the weights to another ------------------------------------------------------------


@each_dtype
@each_optimizer
@pytest.mark.parametrize("piece", [1 << 18, 64])
def test_an_update_from_one_copy_to_another_has_the_same_bits_and_only_reads_the_first(
    monkeypatch: pytest.MonkeyPatch, optimizer: Any, dtype: str, piece: int
) -> None:
    monkeypatch.setattr(updater_module, "PIECE", piece)
    expected = optim.Updater(optimizer, numbers(100, dtype))
    copies = [optim.Updater(optimizer, numbers(100, dtype)), optim.Updater(optimizer, np.full(100, np.nan, dtype))]
    for step in range(6):
        source, target = copies[step % 2], copies[(step + 1) % 2]
        pair = numbers(100, dtype, seed=step), numbers(100, dtype, seed=-step % 100 + 100)
        before = [array.tobytes() for array in (*pair, source.weights, *source.state.values())]
        expected.update(*pair)
        for _ in range(2):  # as if the first were broken off: what it has written does not matter
            target.update(*pair, source=source)
            for array in (target.weights, *target.state.values()):
                array[::3] = np.nan
        target.update(*pair, source=source)
        assert before == [array.tobytes() for array in (*pair, source.weights, *source.state.values())]
        assert expected.weights.tobytes() == target.weights.tobytes()
        assert {name: array.tobytes() for name, array in expected.state.items()} == {
            name: array.tobytes() for name, array in target.state.items()
        }
        assert step + 1 == target.version == expected.version


def test_a_velocity_keeps_the_rate_of_its_time() -> None:
    """As scikit-learn's and Keras's; with a constant rate it is torch's momentum."""
    schedule = optim.StepDecay(0.5, 1, gamma=0.5)
    updater = optim.Updater(optim.SGD(schedule, momentum=0.5, velocity=True), np.zeros(1))
    for _ in range(2):
        updater.update(np.ones(1))
    assert -0.5 - (0.25 + 0.25) == updater.weights[0]
    for nesterov in (False, True):
        pair = [
            optim.Updater(optim.SGD(0.1, 0.9, nesterov=nesterov, velocity=velocity), np.zeros(3))
            for velocity in (False, True)
        ]
        for step in range(5):
            for updater in pair:
                updater.update(np.array([1.0, -2.0, 0.0]) * step)
        np.testing.assert_allclose(pair[0].weights, pair[1].weights, rtol=1e-14)
    with pytest.raises(SettingError, match="velocity=True needs a momentum"):
        optim.SGD(0.1, velocity=True)


def test_an_eps_hat_is_added_before_the_bias_is_corrected() -> None:
    updaters = [optim.Updater(optim.Adam(1.0, eps=1e-7, eps_hat=hat), np.zeros(1)) for hat in (False, True)]
    for updater in updaters:
        updater.update(np.full(1, 1e-7))
    assert [-0.5, -0.030653] == [round(float(updater.weights[0]), 6) for updater in updaters]
