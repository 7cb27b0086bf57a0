"""Foreign files are read without running code from them."""

import argparse
import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from abaw.errors import AbawError, ExitCode
from abaw.models.weight_files import read_weight_file
from tests.unit.foreign_weights import save


class Malicious:
    """Unpickling this runs a command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture(params=[True, False], ids=["zip", "old pickle"])
def is_zip(request) -> bool:
    return request.param


def test_tensors_and_plain_values_are_read(tmp_path: Path, is_zip: bool) -> None:
    content = {"model": {"a": torch.arange(3.0)}, "epoch": 4}
    found = read_weight_file(save(tmp_path / "w.pth", content, is_zip=is_zip))
    assert (found.header, found.content["epoch"]) == (None, 4)
    assert torch.equal(found.content["model"]["a"], torch.arange(3.0))


def test_the_name_does_not_decide_what_a_file_is(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.bin")
    save(tmp_path / "w.data", {"a": torch.ones(2)})
    for name in ("w.bin", "w.data"):
        assert torch.equal(read_weight_file(tmp_path / name).content["a"], torch.ones(2))


def test_a_namespace_is_accepted(tmp_path: Path, is_zip: bool) -> None:
    content = {"args": argparse.Namespace(lr=0.1, name="x", nothing=None)}
    assert read_weight_file(save(tmp_path / "w.pth", content, is_zip=is_zip)).content == content


def test_arrays_and_scalars_of_numpy_are_accepted(tmp_path: Path, is_zip: bool) -> None:
    arrays = {letter: np.array([[1, 0], [2, 3]], letter) for letter in "?bhiqBfde"}
    content = {**arrays, "scalar": np.float64(2.5)}
    found = read_weight_file(save(tmp_path / "w.pth", content, is_zip=is_zip)).content
    assert found["scalar"] == 2.5
    for letter, array in arrays.items():
        assert found[letter].dtype == array.dtype
        assert np.array_equal(found[letter], array)


def test_arrays_are_accepted_under_the_name_that_older_numpy_wrote(tmp_path: Path) -> None:
    content = save(tmp_path / "w.pth", {"a": np.arange(3.0)}, is_zip=False).read_bytes()
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert (old in content) != (new in content)
    written, other = (old, new) if old in content else (new, old)
    (tmp_path / "other.pth").write_bytes(content.replace(b"c" + written + b"\n", b"c" + other + b"\n"))
    assert np.array_equal(read_weight_file(tmp_path / "other.pth").content["a"], np.arange(3.0))


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, is_zip: bool) -> None:
    trace = tmp_path / "was_run"
    path = save(tmp_path / "w.pth", {"model": {"a": torch.ones(1)}, "x": Malicious(trace)}, is_zip=is_zip)
    with pytest.raises(AbawError, match=r"would call (posix|nt)\.system when read"):
        read_weight_file(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file is a working one: unrestricted reading does run it
    assert trace.exists()


def test_builtin_functions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.")
    with pytest.raises(AbawError, match="w.pt"):
        read_weight_file(tmp_path / "w.pt")


def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"x": Malicious(tmp_path / "was_run")}))
    with pytest.raises(AbawError, match="not a readable weights file"):
        read_weight_file(tmp_path / "w.pt")
    assert not (tmp_path / "was_run").exists()


def test_a_whole_module_is_refused_with_its_class(tmp_path: Path, is_zip: bool) -> None:
    path = save(tmp_path / "w.pt", torch.nn.Linear(2, 2), is_zip=is_zip)
    with pytest.raises(AbawError, match=r"pickled whole module, of class torch\.nn\.modules\.linear\.Linear") as caught:
        read_weight_file(path)
    assert "state_dict" in caught.value.fix


@pytest.mark.parametrize("value", [Path("somewhere"), np.array([None, 1], object)], ids=["path", "objects"])
def test_other_classes_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(AbawError, match="which is not weights"):
        read_weight_file(save(tmp_path / "w.pth", {"args": value}))


def test_the_allow_list_is_closed_again(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = save(tmp_path / "w.pth", {"args": argparse.Namespace(a=1)})
    read_weight_file(path)
    assert set(torch.serialization.get_safe_globals()) == before  # torch lists a set, in any order
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(AbawError, match="TorchScript"):
        read_weight_file(tmp_path / "w.pt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_cut_off_file_is_a_message(tmp_path: Path, is_zip: bool, share: float) -> None:
    path = save(tmp_path / "w.pth", {"model": {"a": torch.ones(200)}, "args": argparse.Namespace(a=1)}, is_zip=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AbawError, match=r"w\.pth is (not a readable weights file|refused)") as caught:
        read_weight_file(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello, these are no weights at all", b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_files_of_other_formats_are_a_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(AbawError, match="is not a weights file"):
        read_weight_file(tmp_path / "w.pth")


def test_a_missing_file_is_exit_code_5_and_a_folder_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="there is no weights file") as caught:
        read_weight_file(tmp_path / "none.pth")
    assert caught.value.code is ExitCode.MISSING
    with pytest.raises(AbawError, match="cannot be read") as caught:
        read_weight_file(tmp_path)
    assert "not its folder" in caught.value.fix


def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, is_zip: bool) -> None:
    path = save(tmp_path / "w.pth", {"model": {"a": torch.ones(4)}, "n": np.ones(2)}, is_zip=is_zip)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(0, min(len(content), 700), 150):
        broken = bytearray(content)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        with contextlib.suppress(AbawError):
            read_weight_file(path)
