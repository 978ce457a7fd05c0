"""An ONNX model under construction: named tensors, nodes that make them, and the file.

The versions are low enough for runtimes of 2024: operators of opset 18 and of version 3 of ai.onnx.ml, in a file of IR
version 10. Nothing is written but plain tensors, and no node turns numbers into text or text into numbers, as runtimes
disagree with karp (and with each other) about what "1e3" is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from karp import __version__
from karp.errors import MissingError, RecordError, SettingError
from karp.record.files import reason, replacing

IR, OPSET, ML_OPSET = 10, 18, 3
ML = "ai.onnx.ml"
ROWS = "rows"  # the name of the axis of rows, whose size is free
LARGEST = 2**31 - 2**24  # bytes of constants: a protobuf message has less than 2 GiB, and there are nodes too
_SHARED = 1 << 10  # constants up to this size in bytes are written once
_TEXT = np.dtype(object)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph that depends on its inputs: its name, and its dtype (object for texts)."""

    name: str
    dtype: np.dtype[Any]


Operand = Tensor | NDArray[Any]


def package() -> Any:
    """Import onnx and return it; raise a MissingError that names the extra if it is not installed."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise MissingError("writing an ONNX model needs onnx: pip install 'karp[onnx]'") from None
    return onnx


class Graph:
    """A graph to which inputs, nodes and outputs are added, and that is then written; `note` says what it is.

    Arrays among the operands of a node become constants of the model.
    """

    def __init__(self, note: str) -> None:
        self._onnx = package()
        self._note = note
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names: set[str] = set()
        self._size = 0  # of the constants, in bytes

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[str | int], note: str = "") -> Tensor:
        """Add an input; all of them come before the first node, as names inside the graph avoid theirs."""
        tensor = Tensor(name, np.dtype(dtype))
        self._names.add(name)
        self._inputs.append(self._described(tensor, shape, note))
        return tensor

    def output(self, tensor: Tensor, name: str, shape: Sequence[str | int], note: str = "") -> None:
        """Add an output; it is named `name`, with a "_" behind it where an input has this name."""
        named = self._add("Identity", [tensor.name], tensor.dtype, name)
        self._outputs.append(self._described(named, shape, note))

    def node(
        self, kind: str, *operands: Operand, dtype: DTypeLike | None = None, domain: str = "", **attributes: Any
    ) -> Tensor:
        """Add a node and return its tensor, which has the dtype of the first operand unless another is given."""
        names = [self._name_of(operand) for operand in operands]
        return self._add(
            kind, names, operands[0].dtype if dtype is None else np.dtype(dtype), domain=domain, **attributes
        )

    def cast(self, operand: Operand, dtype: DTypeLike) -> Operand:
        """Return a tensor or an array in a dtype."""
        kind = np.dtype(dtype)
        if operand.dtype == kind:
            return operand
        if isinstance(operand, np.ndarray):
            return operand.astype(kind)
        return self.node("Cast", operand, dtype=kind, to=self._type(kind))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the model, whole or not at all; raise RecordError if that fails, SettingError if it is too large."""
        if self._size > LARGEST:
            raise SettingError(f"the model takes more than {LARGEST:,} bytes, the most that an ONNX file has")
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "karp", self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, doc_string=self._note)
        model.producer_name, model.producer_version = "karp", __version__
        try:
            with replacing(Path(path)) as file:
                file.write(model.SerializeToString(deterministic=True))
        except OSError as error:
            raise RecordError(f"{os.fspath(path)!r} cannot be written: {reason(error)}") from None

    def _add(
        self, kind: str, operands: list[str], dtype: np.dtype[Any], name: str = "", domain: str = "", **attributes: Any
    ) -> Tensor:
        made = self._fresh(name) if name else self._numbered(kind)
        self._nodes.append(self._onnx.helper.make_node(kind, operands, [made], domain=domain, **attributes))
        return Tensor(made, dtype)

    def _name_of(self, operand: Operand) -> str:
        """Return the name of a tensor, or of the constant that an array becomes."""
        if isinstance(operand, Tensor):
            return operand.name
        array = np.ascontiguousarray(operand).reshape(operand.shape)  # which makes an axis for a number
        if array.dtype.kind == "U":
            array = array.astype(object)
        key = None
        if array.nbytes <= _SHARED and array.dtype != _TEXT:
            key = array.dtype.str, array.shape, array.tobytes()
            if key in self._shared:
                return self._shared[key]
        name = self._numbered("Constant")
        self._size += array.nbytes
        if self._size <= LARGEST:  # else the library fails, here or when it writes
            self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        if key is not None:
            self._shared[key] = name
        return name

    def _numbered(self, kind: str) -> str:
        return self._fresh(f"{kind}.{len(self._nodes) + len(self._constants)}")

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def _type(self, dtype: np.dtype[Any]) -> int:
        text = dtype.kind in "OU"
        number: int = self._onnx.TensorProto.STRING if text else self._onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return number

    def _described(self, tensor: Tensor, shape: Sequence[str | int], note: str = "") -> Any:
        return self._onnx.helper.make_tensor_value_info(tensor.name, self._type(tensor.dtype), list(shape), note)
