"""Weights in torch's layout: torch's own modules load them strictly, and give the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import PRICE, SPECIES, TABLE, fitted
from safetensors import safe_open
from safetensors.numpy import load_file

from karp import cli, nn
from karp.autograd import Value, relu
from karp.errors import SettingError
from karp.export import torch as export
from karp.parameters import weights_file
from karp.tabular import model_file
from karp.tabular.model import Model

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*of a level that training had not")


def loaded(module: Any, path: Path) -> Any:
    from safetensors.torch import load_file as load

    module.load_state_dict(load(path), strict=True)
    return module.double().eval()


def same(model: Any, module: Any, path: Path, inputs: int = 5) -> None:
    export(model, path)
    x = np.random.default_rng(0).normal(size=(7, inputs))
    x = x if model.parameters.layout.dtype == "float64" else x.astype(np.float32)
    found = loaded(module, path)(torch.from_numpy(x.astype(np.float64))).detach().numpy()
    np.testing.assert_allclose(found, model(x).data, rtol=1e-3, atol=1e-6)


def shaken(model: nn.Module) -> Any:
    """A module whose biases are not 0, nor its norms 1."""
    rng = np.random.default_rng(1)
    for value in model.parameters.values:
        value.data[...] += rng.normal(size=value.data.shape)
    return model


def test_an_mlp_is_a_sequential(tmp_path: Path) -> None:
    t = torch.nn
    same(shaken(nn.MLP(5, [5, 4], 3)), t.Sequential(
        t.Linear(5, 5), t.ReLU(), t.Linear(5, 4), t.ReLU(), t.Linear(4, 3)), tmp_path / "w")  # fmt: skip
    same(shaken(nn.MLP(5, [4], 3, dropout=0.5, dtype="float64")), t.Sequential(
        t.Linear(5, 4), t.ReLU(), t.Dropout(0.5), t.Linear(4, 3)), tmp_path / "w")  # fmt: skip
    same(shaken(nn.MLP(5, [4, 4], 3, layer_norm=True, dropout=0.5)), t.Sequential(
        t.Linear(5, 4), t.LayerNorm(4), t.ReLU(), t.Dropout(0.5), t.Linear(4, 4), t.LayerNorm(4), t.ReLU(),
        t.Dropout(0.5), t.Linear(4, 3)), tmp_path / "w")  # fmt: skip


def test_a_sequential_has_the_same_numbers_in_it(tmp_path: Path) -> None:
    t = torch.nn
    model = nn.Sequential(nn.Linear(5, 4, bias=False), relu, nn.Sequential(nn.Linear(4, 4, activation="tanh"),
                          nn.LayerNorm(4)), nn.Dropout(0.5), nn.Linear(4, 2))  # fmt: skip
    same(shaken(model), t.Sequential(t.Linear(5, 4, bias=False), t.ReLU(), t.Sequential(t.Linear(4, 4), t.Tanh(),
         t.LayerNorm(4)), t.Dropout(0.5), t.Linear(4, 2)), tmp_path / "w")  # fmt: skip


class Named(nn.Module):
    def __init__(self) -> None:
        self.embedding = nn.Embedding(5, 5)
        self.blocks = [nn.Linear(5, 5), nn.Linear(5, 2)]
        self.factor = Value(np.ones((2, 2), np.float32))

    def __call__(self, x: Any, rng: Any = None) -> Value:
        return self.blocks[1](relu(self.blocks[0](self.embedding(x)))) @ self.factor


class Twin(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 5)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(5, 5), torch.nn.Linear(5, 2)])
        self.factor = torch.nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Any) -> Any:
        return self.blocks[1](torch.relu(self.blocks[0](self.embedding(x)))) @ self.factor


def test_other_modules_keep_their_names_and_only_linear_ones_are_transposed(tmp_path: Path) -> None:
    model = shaken(Named())
    export(model, tmp_path / "w")
    rows = np.array([0, 4, 2])
    found = loaded(Twin(), tmp_path / "w")(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(found, model(rows).data, rtol=1e-4, atol=1e-6)


def test_a_file_of_torch_s_layout_is_no_weights_of_karp_s(tmp_path: Path) -> None:
    """Though every matrix in it is square."""
    model = Named()
    export(model, tmp_path / "w")
    before = model.parameters.sha256()
    with pytest.raises(SettingError, match="have torch's layout"):
        model.parameters.load(tmp_path / "w")
    assert before == model.parameters.sha256()
    with safe_open(tmp_path / "w", "numpy") as file:
        assert {"format": "pt"} == file.metadata()


@pytest.mark.parametrize("target", [SPECIES, PRICE], ids=["classes", "numbers"])
@pytest.mark.parametrize("layers", [(8, 4), ()])
def test_the_network_of_a_table_is_a_sequential(tmp_path: Path, target: Any, layers: Any) -> None:
    model = Model(fitted(target, layers=layers, activation="mish"))
    model_file.write(tmp_path / "m.safetensors", model.fitted)
    path = tmp_path / "w.safetensors"
    assert 0 == cli.main(["export", str(tmp_path / "m.safetensors"), str(path), "--layout", "torch"])
    inputs = model.encode(TABLE)
    assert inputs[1].tobytes() == model.encode({name: cells[1] for name, cells in TABLE.items()}).tobytes()
    sizes = [inputs.shape[1], *layers, len(target.classes) or 1]
    modules = [torch.nn.Linear(size, sizes[place + 1]) for place, size in enumerate(sizes[:-1])]
    parts = [part for module in modules for part in (module, torch.nn.Mish())][:-1]
    out = loaded(torch.nn.Sequential(*parts), path)(torch.from_numpy(inputs).double()).detach()
    if target.classes:
        np.testing.assert_allclose(torch.softmax(out, 1).numpy(), model.predict_proba(TABLE), atol=1e-5)
    else:
        np.testing.assert_allclose(out[:, 0].numpy() * 10 + 100, model.predict(TABLE), rtol=1e-5)


def test_the_weights_of_a_run_keep_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shaken(nn.MLP(5, [5], 5))
    weights = {name: value.data for name, value in model.named_parameters()}
    (tmp_path / "w.safetensors").write_bytes(weights_file.write(weights, weights_file.KARP))
    path = tmp_path / "t.safetensors"
    assert 0 == cli.main(["export", str(tmp_path / "w.safetensors"), str(path), "--layout", "torch"])
    first, last = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
    module = torch.nn.Module()
    module.layers = torch.nn.ModuleList([first, last])
    loaded(module, path)
    x = np.eye(5, dtype=np.float32)
    found = last(torch.relu(first(torch.from_numpy(x).double()))).detach().numpy()
    np.testing.assert_allclose(found, model(x).data, rtol=1e-4, atol=1e-6)
    lone = nn.Sequential(nn.Linear(2, 2, bias=False))
    weights = {name: value.data for name, value in lone.named_parameters()}
    (tmp_path / "w.safetensors").write_bytes(weights_file.write(weights, weights_file.KARP))
    assert 2 == cli.main(["export", str(tmp_path / "w.safetensors"), str(path), "--layout", "torch"])
    assert "'layers.0.weight' has no bias, so it may be a Linear or an Embedding" in capsys.readouterr().err


def test_an_estimator_is_a_sequential(tmp_path: Path) -> None:
    class Fitted:
        coefs_ = (np.ones((3, 2)), np.ones((2, 1)))
        intercepts_ = (np.zeros(2), np.zeros(1))

    export(Fitted(), tmp_path / "w")
    shapes = {name: array.shape for name, array in load_file(tmp_path / "w").items()}
    assert {"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)} == shapes


def test_what_torch_has_not_is_refused(tmp_path: Path) -> None:
    for wrong, said in ((Model(fitted(members=2)), "has 2 members"), ({}, "dict has no weights for torch")):
        with pytest.raises(SettingError, match=said):
            export(wrong, tmp_path / "w")
    assert [] == list(tmp_path.iterdir())
