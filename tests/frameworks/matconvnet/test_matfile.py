"""Reading MAT files: against scipy on real files, and on damaged ones, which must give one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from parity.errors import BadFile
from parity.frameworks.matconvnet.lift import lift
from parity.frameworks.matconvnet.matfile import Unreadable, read
from parity.frameworks.matconvnet.values import allowance
from tests.frameworks.matconvnet.golden import TRACES

VERSIONS = ("v6", "v7", "v73")


def net_file(version: str) -> Path:
    return TRACES / f"seed_slim_f01_net_{version}.mat"


def same(actual: Any, expected: Any) -> None:
    """Equal plain values, of the same types, names and shapes."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert sorted(actual) == sorted(expected)
        for name in expected:
            same(actual[name], expected[name])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            same(a, e)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected)
    else:
        assert actual == expected


def plain(value: Any) -> Any:
    """What scipy reads, in the form that `read` gives."""
    if isinstance(value, scipy.io.matlab.mat_struct):
        return {name: plain(getattr(value, name)) for name in value._fieldnames}
    if isinstance(value, np.ndarray) and value.dtype == object:
        items = [plain(v) for v in value.ravel(order="F")]
        single = len(items) == 1 and isinstance(value.flat[0], scipy.io.matlab.mat_struct)
        return items[0] if single else items
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return value.tolist()[0] if value.size == 1 else "" if not value.size else value.tolist()
    return value


@pytest.mark.parametrize(
    "name", ["tidy_cases", "ops_loss", "checkpoint_slim_nobn_epoch2", "seed_slim_f01_net_v6", "seed_slim_bn_head"]
)
def test_version_5_as_scipy_reads_it(name: str) -> None:
    found = read(TRACES / f"{name}.mat")
    expected = scipy.io.loadmat(TRACES / f"{name}.mat", struct_as_record=False)
    for key, value in found.items():
        same(_bits(value), _bits(plain(expected[key])))


def _bits(value: Any) -> Any:
    """scipy gives logicals as uint8."""
    if isinstance(value, dict):
        return {k: _bits(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_bits(v) for v in value]
    return value.astype(np.uint8) if isinstance(value, np.ndarray) and value.dtype == bool else value


def test_the_three_versions_are_twins() -> None:
    v6, v7, v73 = (read(net_file(version)) for version in VERSIONS)
    same(v7, v6)
    same(v73, v6)


def test_values_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "kinds.mat"
    values = {
        "number": np.array([[1.5]]),
        "row": np.arange(3, dtype=np.int16).reshape(1, 3),
        "cube": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "flag": np.array([[True, False]]),
        "empty": np.zeros((0, 3)),
        "text": "h\u00e9llo",
        "rows": np.array(["ab", "cd"]),
        "cell": np.array([["x", np.ones((2, 2))]], dtype=object),
        "void": np.zeros((0, 0), dtype=object),
        "pair": {"a": 1.0, "b": {"c": "d"}},
        "complex": np.array([[1 + 2j]]),
        "sparse": scipy.sparse.csc_matrix(np.eye(3)),
    }
    scipy.io.savemat(path, values, do_compression=True)
    found = read(path)
    assert found["number"].item() == 1.5
    same(found["row"], values["row"])
    same(found["cube"], values["cube"])
    same(found["flag"], values["flag"])
    assert found["empty"].shape == (0, 3)
    assert found["text"] == "h\u00e9llo"
    assert found["rows"] == ["ab", "cd"]
    assert found["cell"][0] == "x"
    same(found["cell"][1], np.ones((2, 2)))
    assert found["void"] == []
    assert found["pair"]["b"]["c"] == "d"
    assert found["complex"] == Unreadable("a complex array")
    assert found["sparse"] == Unreadable("a sparse array")


def test_big_endian(tmp_path: Path) -> None:
    """A file as an old workstation wrote it: one double, spelled by hand."""
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 1, 2) + struct.pack(">HH", 1, 1)[:0]
    body += struct.pack(">HH4s", 1, 1, b"x\0\0\0") + struct.pack(">II2d", 9, 16, 1.5, -2.0)
    path = tmp_path / "big.mat"
    path.write_bytes(
        b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI" + struct.pack(">II", 14, len(body)) + body
    )
    same(read(path), {"x": np.array([[1.5, -2.0]])})


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("part", range(10))
def test_truncated(version: str, part: int, tmp_path: Path) -> None:
    data = net_file(version).read_bytes()
    path = tmp_path / "cut.mat"
    path.write_bytes(data[: len(data) * (part * 10 + 3) // 100])
    with pytest.raises(BadFile) as caught:
        lift(path)
    assert "cut.mat" in one_line(caught.value)


@pytest.mark.parametrize("size", [0, 1, 60, 127, 128])
def test_cut_within_the_header(size: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.mat"
    path.write_bytes(net_file("v6").read_bytes()[:size])
    with pytest.raises(BadFile) as caught:
        lift(path)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello, this is no MAT file at all" * 10, "is not a MAT file"),
        (b"PK\x03\x04" + b"\0" * 400, "zip archive"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 600, "HDF5"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "cannot be read"),
    ],
)
def test_not_a_mat_file(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "net.mat"
    path.write_bytes(content)
    with pytest.raises(BadFile) as caught:
        read(path)
    assert says in one_line(caught.value)


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        read(tmp_path / "none.mat")
    with pytest.raises(BadFile, match="is not a file"):
        read(tmp_path)


def header() -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def array(kind: int, extents: tuple[int, ...], rest: bytes) -> bytes:
    """A little-endian array element named x."""
    dims = struct.pack(f"<{len(extents)}i", *extents)
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<II", 5, len(dims)) + dims + b"\0" * (-len(dims) % 8)
    body += struct.pack("<HH4s", 1, 1, b"x\0\0\0") + rest
    return struct.pack("<II", 14, len(body)) + body


@pytest.mark.parametrize(
    "element",
    [
        pytest.param(array(6, (2**30, 2**30), struct.pack("<IId", 9, 8, 1.0)), id="numbers"),
        pytest.param(array(1, (2**30, 2**30), b""), id="cells"),
        pytest.param(array(2, (2**30, 2**20), struct.pack("<HHi", 5, 4, 32) + struct.pack("<II", 1, 0)), id="structs"),
        pytest.param(array(6, (-1, 3), struct.pack("<IId", 9, 8, 1.0)), id="negative"),
        pytest.param(struct.pack("<II", 14, 2**31), id="element"),
        pytest.param(array(6, (1, 1), struct.pack("<IId", 99, 8, 1.0)), id="unknown numbers"),
        pytest.param(array(77, (1, 1), struct.pack("<IId", 9, 8, 1.0)), id="unknown class"),
    ],
)
def test_absurd_claims(element: bytes, tmp_path: Path) -> None:
    path = tmp_path / "absurd.mat"
    path.write_bytes(header() + element)
    with pytest.raises(BadFile) as caught:
        read(path)
    one_line(caught.value)


def test_a_compressed_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unfolds beyond its allowance is refused before it does; the allowance itself is lowered here for speed."""
    assert allowance(1000) == 256 << 20
    monkeypatch.setattr("parity.frameworks.matconvnet.mat5.allowance", lambda size: 64 * size)
    size = 16 << 20
    squeezer = zlib.compressobj(9)
    inner = struct.pack("<II", 14, size) + struct.pack("<IIII", 6, 8, 9, 0)
    packed = (
        squeezer.compress(inner)
        + b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(size >> 20))
        + squeezer.flush()
    )
    path = tmp_path / "bomb.mat"
    path.write_bytes(header() + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(BadFile, match="far more"):
        read(path)


def test_a_small_file_of_more_values_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes unfold to an array of a hundred; the limit is lowered here for speed."""
    monkeypatch.setattr("parity.frameworks.matconvnet.mat5.MOST", 1000)
    path = tmp_path / "many.mat"
    path.write_bytes(header() + array(1, (1, 900), struct.pack("<II", 14, 0) * 900))
    assert len(read(path)["x"]) == 900
    path.write_bytes(header() + array(1, (1, 1100), struct.pack("<II", 14, 0) * 1100))
    with pytest.raises(BadFile, match="more values"):
        read(path)


def test_nesting_without_end(tmp_path: Path) -> None:
    element = array(6, (1, 1), struct.pack("<IId", 9, 8, 1.0))
    for _ in range(500):
        element = array(1, (1, 1), element)
    path = tmp_path / "deep.mat"
    path.write_bytes(header() + element)
    with pytest.raises(BadFile, match="nested"):
        read(path)


def test_version_73_in_circles_and_in_other_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "circle.mat"
    with h5py.File(path, "w") as file:
        cell = file.create_dataset("net", (1, 1), h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        cell[0, 0] = cell.ref
    with pytest.raises(BadFile, match="circles"):
        read(path)
    with h5py.File(path, "w") as file:
        file["net"] = h5py.ExternalLink("/etc/hostname", "/x")
    with pytest.raises(BadFile, match="link"):
        read(path)
    with h5py.File(path, "w") as file:
        huge = file.create_dataset("net", (1 << 20, 1 << 20), "f8", chunks=(1, 1 << 10))
        huge.attrs["MATLAB_class"] = np.bytes_("double")
    with pytest.raises(BadFile, match="far more"):
        read(path)
    with h5py.File(path, "w") as file:  # each level refers twelve times to the one below it
        below = file.create_dataset("#refs#/0", data=np.ones((1, 1)))
        for level in range(1, 12):
            cell = file.create_dataset(f"#refs#/{level}", (1, 12), h5py.ref_dtype)
            cell.attrs["MATLAB_class"] = np.bytes_("cell")
            cell[0] = [below.ref] * 12
            below = cell
        file["layers"] = below
    with pytest.raises(BadFile, match="more values"):
        read(path)


def test_numbers_stored_small_count_as_what_they_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of eight bytes, kept in one: eight times the memory of what is stored."""
    monkeypatch.setattr("parity.frameworks.matconvnet.mat5.allowance", lambda size: 4 * size)
    path = tmp_path / "grown.mat"
    path.write_bytes(header() + array(6, (1, 4096), struct.pack("<II", 2, 4096) + bytes(4096)))
    with pytest.raises(BadFile, match="far more"):
        read(path)


@pytest.mark.parametrize("code", [(4, "<u2"), (1, "u1"), (2, "u1")])
def test_text_as_codes(code: tuple[int, str], tmp_path: Path) -> None:
    kind, dtype = code
    said = "conv1" if dtype == "u1" else "convé–"
    raw = np.array([ord(c) for c in said], dtype).tobytes()
    path = tmp_path / "text.mat"
    path.write_bytes(
        header() + array(4, (1, len(said)), struct.pack("<II", kind, len(raw)) + raw + b"\0" * (-len(raw) % 8))
    )
    assert read(path) == {"x": said}


def test_a_text_without_end(tmp_path: Path) -> None:
    size = (1 << 22) + 8
    path = tmp_path / "text.mat"
    path.write_bytes(header() + array(4, (1, size), struct.pack("<II", 2, size) + b"x" * size))
    with pytest.raises(BadFile, match="characters"):
        read(path)
