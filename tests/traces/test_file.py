"""The file itself: sealed, written whole or not at all, refused in one line where it is damaged or newer."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import parity
from parity.cli import main
from parity.distances import distance
from parity.errors import BadFile, BadUsage
from parity.frameworks.matconvnet.lift import lift
from parity.layers import KINDS, Opaque
from parity.network import Layer, Network, Param
from parity.optimizers import RULES
from parity.recipe import Recipe, Schedule
from parity.reports.output import check_target
from parity.traces.codec import decoded, encoded
from parity.traces.format import BLOCK, check, chunk_shape, escaped, header, seal, unescaped
from parity.traces.reader import Trace
from parity.traces.seal import PIECE, Pieces
from parity.traces.sketch import Sketch
from parity.traces.writer import writing
from tests import twins

ROOT = Path(__file__).parents[2]
GATE = ROOT / "traces" / "gate"


def complaint(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "please report" not in err
    return err


def held(value):
    """A value through JSON and back."""
    arrays = []

    def store(array):
        arrays.append(array)
        return len(arrays) - 1

    return decoded(json.loads(json.dumps(encoded(value, store), allow_nan=False)), lambda n: arrays[n])


# ------------------------------------------------------------------------------------------------------ what it holds


@pytest.mark.parametrize("cls", [*KINDS, *RULES], ids=lambda cls: cls.__name__)
def test_every_kind_and_rule_comes_back(cls):
    from dataclasses import MISSING

    needed = {f.name: 1 for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    made = cls(**needed)
    assert held(made) == made


def test_values_come_back():
    recipe = Recipe(
        learning_rate=Schedule("epochs", (0.1, float("nan"), float("inf")), config={"a": (1, [2, None])}),
        slots={"w": {"velocity": np.arange(3.0)}},
        defaults=frozenset({"epochs"}),
    )
    back = held(recipe)
    assert np.array_equal(back.learning_rate.values, recipe.learning_rate.values, equal_nan=True)
    assert back.learning_rate.config == {"a": (1, [2, None])}
    assert np.array_equal(back.slots["w"]["velocity"], np.arange(3.0))
    assert back.defaults == {"epochs"}
    kind = Opaque("Mine", {"f": lambda: 0, "words": np.array(["a", "b"])}, runs_code=True)
    again = held(kind)
    assert (again.type, again.runs_code, list(again.config["words"])) == ("Mine", True, ["a", "b"])


def test_a_kind_that_nobody_knows_is_opaque_and_a_field_that_nobody_knows_is_refused():
    assert held(Opaque("x")).type == "x"
    assert decoded({"@": "Future", "=": {"size": 3}}, lambda n: n) == Opaque("Future", {"size": 3})
    with pytest.raises(ValueError, match="'colour', which this parity does not know"):
        decoded({"@": "Dense", "=": {"colour": 3}}, lambda n: n)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("inputs", {3: (4,)}, "no text"),
        ("inputs", {"x": 4}, "shape"),
        ("outputs", (None,), "no text"),
        ("objectives", {"loss": "much"}, "no number"),
    ],
)
def test_a_network_whose_names_and_numbers_are_none_is_refused(field, value, words):
    with pytest.raises(ValueError, match=words):
        held(replace(empty(), **{field: value}))


@pytest.mark.parametrize("path", ["traces/seed/net.mat", "traces/matconvnet/dag_resnet_netfile.mat"])
def test_a_network_comes_back(path):
    network, recipe = lift(ROOT / path)
    back = held(network)
    for mine, theirs in zip(network.layers, back.layers, strict=True):
        assert all(getattr(mine, f.name) == getattr(theirs, f.name) for f in fields(Layer))
    assert set(back.params) == set(network.params)
    assert held(recipe).optimizer == recipe.optimizer


@pytest.mark.parametrize("name", ["a/b", ".", "..", "x.y", "", "%2F", "Größe 1", "a\\b"])
def test_names_are_kept(name):
    assert unescaped(escaped(name)) == name
    assert "/" not in escaped(name)
    assert escaped(name) not in (".", "..", "")


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (700_000,), (9, 33, 31, 70), (3, 600, 600, 3), (2, 3, 4)])
@pytest.mark.parametrize("kind", ["f4", "f8", "i8", "?"])
def test_arrays_are_kept_bit_for_bit(tmp_path, shape, kind):
    value = np.random.default_rng(0).standard_normal(shape).astype(kind)
    if value.ndim > 2:
        value = np.asfortranarray(value)
    with writing(tmp_path / "t.h5", "-o", "0") as writer:
        writer.put("weights/0", "w", value)
        writer.info(facts(), empty(), Recipe())
    with Trace(tmp_path / "t.h5") as trace:
        assert np.array_equal(trace.weights(0)["w"], value)
        one = trace.held("weights/0", "w")
        if shape and value.size:
            assert np.array_equal(np.concatenate([block.ravel() for block in one.blocks()]), value.ravel())
            start, stop = value.size // 7, value.size - value.size // 3
            assert np.array_equal(one.span(start, stop), value.ravel()[start:stop])
            assert np.prod(chunk_shape(shape)) <= 1 << 18


@pytest.mark.parametrize("keep", ["all", "sample", "stats"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 4), (1, 3), ()])
def test_of_a_tensor_without_elements_nothing_is_kept(tmp_path, keep, shape):
    """A region pooling that found no region makes one."""
    with writing(tmp_path / "t.h5", "-o", "0") as writer:
        writer.tensor("step1/outputs", "y", np.ones(shape, np.float32), keep)
        writer.sample("truth/outputs", "y", np.ones(shape))
        writer.info(facts(), empty(), Recipe())
    with Trace(tmp_path / "t.h5") as trace:
        held = trace.held("step1/outputs", "y")
        assert held.shape == shape
        assert held.sketch().count == np.prod(shape[:-1])
        sample = held.sample()
        assert keep == "stats" or sample.shape == (np.prod(shape[:-1]), shape[-1] if shape else 1)


def test_arrays_may_change_once_the_writer_has_settled(tmp_path):
    """It writes while whoever gave them goes on; what it is given later comes behind."""
    values = [np.full((40, 1000, 30), n, np.float32) for n in range(6)]
    with writing(tmp_path / "t.h5", "-o", "0") as writer:
        for n, value in enumerate(values):
            writer.tensor("step1/outputs", str(n), value, ("all", "sample")[n % 2])
        writer.settle()
        for value in values:
            value[:] = -1
        writer.info(facts(), empty(), Recipe())
    with h5py.File(tmp_path / "t.h5") as file:
        assert [float(np.unique(file[f"step1/outputs/{n}"][()]).item()) for n in range(6)] == [0, 1, 2, 3, 4, 5]


def test_what_cannot_be_written_stops_the_run(tmp_path):
    """The writer says so where it is asked whether it is done, and the file is not left."""
    with pytest.raises(ValueError, match="name already exists"):
        _written_twice(tmp_path / "t.h5")
    assert not list(tmp_path.iterdir())


def _written_twice(path):
    with writing(path, "-o", "0") as writer:
        for _ in range(2):
            writer.put("weights/0", "w", np.zeros(3))
        writer.settle()
        pytest.fail("it went on")


def facts(**changes):
    base = {"mode": "eval", "seed": 0, "steps": 0, "tensors": "all", "engine": {}, "source": {}}
    return base | {"passes": [{"loss": None, "losses": {}, "penalty": 0.0}]} | changes


def empty():
    return Network("net", "keras", {"x": (3,)}, ("x",), (), {"w": Param("w", "kernel", "n", (1,))})


def test_statistics_are_distances():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((16, 6, 6, 5)).astype(np.float32)
    for b in (a[:, ::-1], a + np.float32(1e-3), a[..., ::-1], a * np.float32(1.01), np.roll(a, 1, 0)):
        true, told = distance(np.ascontiguousarray(b), a), Sketch.of(b).distance(Sketch.of(a))
        assert 0.5 < told.rms / true.rms < 2
        flat = Sketch.of(b.reshape(16, -1)).distance(Sketch.of(a))
        assert 0.3 < flat.rms / true.rms < 3
    assert Sketch.of(a).distance(Sketch.of(a)).rms == 0
    odd = a.copy()
    odd[0, 0, 0, 0] = np.nan
    assert not Sketch.of(odd).distance(Sketch.of(a)).finite


# ------------------------------------------------------------------------------------------------ written whole or not


@pytest.fixture
def trace(tmp_path):
    """A real recording of MatConvNet, as it was written in format 1."""
    return Path(shutil.copy(GATE / "matconvnet.h5", tmp_path / "run.h5"))


@pytest.fixture(params=["format 1", "format 2"])
def either(trace, request):
    """The recording, as it was written or sealed anew."""
    if request.param == "format 2":
        seal(trace, "0.1.0")
    return trace


RECORD = ["record", "--ref", str(ROOT / "traces" / "octave" / "simple_head.mat"), "-o"]


def test_the_same_run_makes_the_same_file(tmp_path):
    for name in ("a.h5", "b.h5"):
        assert main([*RECORD, str(tmp_path / name)]) == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_full_disk_leaves_the_old_file(trace, capsys):
    before, (soft, hard) = trace.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 5_000, 60_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            err = complaint(capsys, *RECORD, trace)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert f"--output {trace}: cannot be written (File too large; make room" in err
        assert trace.read_bytes() == before
    assert [p.name for p in trace.parent.iterdir()] == ["run.h5"]


def test_a_folder_that_cannot_be_written_is_said_first(tmp_path, capsys):
    assert "there is no directory" in complaint(capsys, *RECORD, tmp_path / "none" / "run.h5")
    assert "is a directory" in complaint(capsys, *RECORD, tmp_path)


def test_a_read_only_disk_is_said_first(trace, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("parity.reports.output.tempfile.TemporaryFile", refuse)
    before = trace.read_bytes()
    assert f"cannot write in {trace.parent} (Read-only file system)" in complaint(capsys, *RECORD, trace)
    assert trace.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_folder_of_others_keeps_its_file():
    """Whoever may do everything becomes somebody who may not."""
    folder, root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    target = folder / "run.h5"
    target.write_bytes(b"before")
    folder.chmod(0o555)
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(BadUsage, match=r"cannot write in .*\(Permission denied\)"):
            check_target(target, "-o")
        with pytest.raises(BadUsage, match=r"cannot be written \(Permission denied"), writing(target, "-o", "0"):
            pass
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert target.read_bytes() == b"before"
    assert [path.name for path in folder.iterdir()] == ["run.h5"]
    shutil.rmtree(folder)


@pytest.mark.parametrize("after", [0.02, 0.2, 0.5])
def test_kill_leaves_the_old_file(trace, after):
    before = trace.read_bytes()
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom parity.traces.writer import writing\n"
        "x = np.random.default_rng(0).standard_normal((64, 64, 64, 8)).astype('f')\n"
        "with writing(Path(sys.argv[1]), '-o', '0') as writer:\n"
        "    print('begun', flush=True)\n"
        "    for n in range(1000): writer.put('step1/outputs', str(n), x)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(trace)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"begun\n"
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert trace.read_bytes() == before
    assert len(list(trace.parent.iterdir())) == 2  # what it had written so far ...
    with writing(trace, "-o", "0") as writer:
        writer.put("inputs", "x", np.zeros(3, np.float32))
    assert [p.name for p in trace.parent.iterdir()] == ["run.h5"]  # ... goes with the next one of that name


def test_an_error_of_the_run_leaves_nothing(tmp_path):
    def fail():
        with writing(tmp_path / "t.h5", "-o", "0") as writer:
            writer.put("inputs", "x", np.zeros(100_000, np.float32))
            raise KeyError("the model's own")

    with pytest.raises(KeyError, match="the model's own"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "said"), [("custom", True), ("relu", False)])
def test_a_last_layer_that_may_be_a_loss_is_told(tmp_path, capsys, kind, said):
    import scipy.io

    conv = np.empty((1, 2), object)
    conv[0, :] = [np.ones((3, 3, 3, 4), np.float32), np.zeros((1, 4), np.float32)]
    cells = np.empty((1, 2), object)
    cells[0, 0] = {"type": "conv", "name": "c1", "weights": conv, "pad": 0.0, "stride": 1.0}
    cells[0, 1] = {"type": kind, "name": "own"}
    scipy.io.savemat(tmp_path / "net.mat", {"layers": cells, "meta": {"inputSize": [3.0, 3.0, 3.0]}})
    words = "own is not known to be a loss, so neither gradients nor updates were recorded"
    assert main(["record", "--ref", str(tmp_path / "net.mat"), "-o", str(tmp_path / "run.h5")]) == 0
    assert (words in capsys.readouterr().out) == said
    with Trace(tmp_path / "run.h5") as trace:
        assert (words in trace.info["remarks"]) == said
    assert main(["record", "--ref", str(tmp_path / "net.mat"), "-o", str(tmp_path / "run.h5"), "--mode", "eval"]) == 0
    assert words not in capsys.readouterr().out


def test_a_trace_is_not_written_over_what_it_records(tmp_path, capsys):
    mat, batch = twins.save(tmp_path / "net.mat", twins.plain()), tmp_path / "batch.npz"
    np.savez(batch, **twins.batch())
    before = mat.read_bytes(), batch.read_bytes()
    for target in (mat, batch):
        err = complaint(capsys, "record", "--ref", mat, "--batch", batch, "-o", target)
        assert f"would write over {target}, which is read" in err
    assert before == (mat.read_bytes(), batch.read_bytes())


def test_options_that_record_nothing(tmp_path, capsys):
    assert "there is nothing to record" in complaint(capsys, "record", "-o", tmp_path / "t.h5")
    assert "--tensors is one of all, sample, stats" in complaint(capsys, *RECORD, tmp_path / "t.h5", "--tensors", "few")
    with pytest.raises(BadUsage, match="there is nothing to record"):
        parity.record(tmp_path / "t.h5")


# --------------------------------------------------------------------------------------------------- damaged and newer


def compare(capsys, path):
    return complaint(capsys, "compare", "--ref", path, "--keras", GATE / "keras.h5")


def test_a_newer_format_names_the_parity_that_reads_it(either, capsys):
    data = either.read_bytes()
    either.write_bytes(data[:13] + b"7 parity/3.2.1" + data[27:])
    err = compare(capsys, either)
    assert "is a trace of format 7, written by parity 3.2.1; this parity reads up to format 2" in err
    assert "read it with parity 3.2.1" in err


def test_an_older_file_still_reads():
    """The shipped traces are of format 1, and stay so."""
    for name in ("matconvnet.h5", "keras.h5"):
        assert (GATE / name).read_bytes().startswith(b"parity-trace/1 ")
        with Trace(GATE / name) as held:
            assert held.header.format == 1
            assert held.steps == 3
            assert held.network.layers
            assert held.truth("outputs", held.network.layers[0].output).sketch().count > 0


@pytest.mark.parametrize("part", [0, 13, 22, 40, 130, 300, 511, 512, 600, 0.3, 0.9, -1])
def test_every_byte_counts(either, capsys, part):
    data = bytearray(either.read_bytes())
    at = int(part * len(data)) if isinstance(part, float) else part
    # Of the first line, format 1 vouches for the size alone; its version and what fills the block are nobody's.
    free = data[13:14] == b"1" and (at == 22 or 116 < at < 512)
    data[at] ^= 0x10
    either.write_bytes(data)
    if not free:
        assert str(either) in compare(capsys, either)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A trace of four pieces, the last of them short."""
    path = tmp_path_factory.mktemp("pieces") / "run.h5"
    with writing(path, "-o", "0.1.0") as sink:
        sink.put("inputs", "x", np.random.default_rng(0).standard_normal(225_000).astype(np.float32))
    assert 3 < (path.stat().st_size - BLOCK) / PIECE < 4
    return path.read_bytes()


def test_the_seal_is_made_of_the_pieces(pieces):
    """As the page on the format has it."""
    line, body = pieces[: pieces.index(b"\n") + 1], pieces[512:]
    said = re.sub(rb" sha256:\w+", b"", line)
    assert said == b"parity-trace/2 parity/0.1.0 bytes:%d\n" % len(body)
    parts = [hashlib.sha256(body[n : n + 2**18]).digest() for n in range(0, len(body), 2**18)]
    assert b"sha256:" + hashlib.sha256(said + b"".join(parts)).hexdigest().encode() in line


def _damages():
    """Ways to damage a file of four pieces: each is a function of its bytes behind the user block."""
    for n in range(4):
        for at in (n * PIECE, n * PIECE + 77_777):
            yield f"bit {at}", lambda b, at=at: b[:at] + bytes([b[at] ^ 1]) + b[at + 1 :]
    yield "last bit", lambda b: b[:-1] + bytes([b[-1] ^ 128])
    yield "pieces in another order", lambda b: b[PIECE : 2 * PIECE] + b[:PIECE] + b[2 * PIECE :]
    yield "a piece in place of another", lambda b: b[:PIECE] + b[:PIECE] + b[2 * PIECE :]
    yield "moved by a byte", lambda b: b[-1:] + b[:-1]
    yield "one byte less", lambda b: b[:-1]
    yield "one byte more", lambda b: b + b"\0"
    yield "a piece less", lambda b: b[: 3 * PIECE]
    yield "a piece more", lambda b: b[:PIECE] + b
    yield "nothing", lambda b: b""


@pytest.mark.parametrize("what", dict(_damages()))
@pytest.mark.parametrize("size", ["old", "new"])
def test_no_damage_to_a_piece_passes(pieces, tmp_path, what, size):
    """Nor where the first line tells the new size."""
    body = dict(_damages())[what](pieces[BLOCK:])
    head = pieces[:BLOCK]
    if size == "new":
        head = re.sub(rb"bytes:\d+", b"bytes:%d" % len(body), head)
    path = tmp_path / "run.h5"
    path.write_bytes(head + body)
    with pytest.raises(BadFile):
        check(path, header(path))


def test_a_sound_file_of_pieces_passes(pieces, tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(pieces)
    check(path, header(path))


def test_what_is_digested_while_a_file_is_written_is_what_it_holds_in_the_end(tmp_path):
    path, rng = tmp_path / "run.h5", np.random.default_rng(0)
    with path.open("w+b", buffering=0) as file, contextlib.closing(Pieces(path)) as pieces:

        def write(at, size):
            file.seek(at)
            pieces.wrote(at, at + file.write(rng.bytes(size)))

        for n in range(4):
            write(BLOCK + n * PIECE, PIECE)
        wait_for(lambda: len(pieces._made) == 4)
        first = pieces.seal(b"said")
        assert first == Pieces(path).seal(b"said")
        for change in (
            lambda: write(BLOCK + PIECE + 7, 1),  # within a piece that was done
            lambda: write(BLOCK + 3 * PIECE - 5, 10),  # over the border of two
            lambda: write(600, 3 * PIECE),  # over several
            lambda: (pieces.cut(BLOCK + 2 * PIECE), file.truncate(BLOCK + 2 * PIECE)),
            lambda: write(BLOCK + 2 * PIECE, PIECE // 2),
            lambda: (pieces.cut(BLOCK + 4 * PIECE), file.truncate(BLOCK + 4 * PIECE)),  # zeros
        ):
            change()
            made = pieces.seal(b"said")
            assert made == Pieces(path).seal(b"said") != first
            first = made


def wait_for(what):
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 13, 100, 512, 5_000, -1])
def test_a_file_that_is_cut_off_is_refused(either, capsys, size):
    either.write_bytes(either.read_bytes()[:size])
    assert str(either) in compare(capsys, either)


def test_what_is_sealed_and_makes_no_sense_is_refused(trace, capsys):
    def change(act):
        with h5py.File(trace, "r+") as file:
            act(file)
        seal(trace, "0.1.0")

    for group in ("inputs", "weights/0"):
        name = next(iter(h5py.File(trace)[group]))
        shape = h5py.File(trace)[group][name].shape
        change(lambda file: file[group][name].attrs.__setitem__("shape", shape))  # noqa: B023  (called at once)
        assert "holds a part of what is always whole" in compare(capsys, trace)
        change(lambda file: file[group][name].attrs.__delitem__("shape"))  # noqa: B023
    change(lambda file: file.__delitem__("info"))
    assert "is a damaged trace" in compare(capsys, trace)
    change(lambda file: file.create_dataset("info", data=np.frombuffer(b"{}", np.uint8)))
    assert "is a damaged trace" in compare(capsys, trace)
    with pytest.raises(BadFile, match="is no trace"):
        Trace(ROOT / "traces" / "seed" / "net.mat")
    assert BLOCK == 512


def test_a_real_run_of_matconvnet_against_its_twin():
    report = parity.compare(ref=GATE / "matconvnet.h5", keras=GATE / "keras.h5", steps=1, allow=["inherited:c2"])
    assert report.verdict == "match"  # from the second update on, all weights follow
    report = parity.compare(ref=GATE / "matconvnet.h5", keras=GATE / "keras.h5")
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("update", "c2")
    assert [f.cause for f in report.findings if f.severity == "divergence"] == ["optimizer-lr-multiplier"]


def test_tensors_are_never_copied_whole(tmp_path):
    """Writing 192 MiB takes a few chunks of memory beside the tensor."""
    code = (
        "import resource, sys, numpy as np\nfrom pathlib import Path\nimport h5py\n"
        "from parity.traces.writer import writing\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "x = np.zeros((8, 32, 1024, 192), np.float32).transpose(0, 3, 2, 1); x[:] = 1\nbefore = peak()\n"
        "with writing(Path(sys.argv[1]), '-o', '0') as writer: writer.put('step1/outputs', 'x', x)\n"
        "print((peak() - before) // 1024)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "t.h5")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(done.stdout) < 40


def test_every_kind_of_number_comes_back_bit_by_bit(tmp_path):
    """Bytes that are coded and bytes that are stored stand in one stream; plain HDF5 reads it."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4, 7, 500, 31))
    given = {
        "dense": noise.astype(np.float32),
        "sparse": np.where(rng.random(noise.shape) < 0.05, noise, 0).astype(np.float32),
        "double": noise,
        "constant": np.ones((9, 5000), np.float32),
        "mask": rng.random((700, 50)) < 0.5,
        "turned": np.asfortranarray(noise.astype(np.float32)),
        "long": rng.standard_normal(700_001).astype(np.float32),
        "half": np.concatenate([noise, np.zeros_like(noise)]).astype(np.float32),
    }
    with writing(tmp_path / "t.h5", "-o", "0") as writer:
        for name, value in given.items():
            writer.put("step1/outputs", name, value)
    with h5py.File(tmp_path / "t.h5") as file:
        for name, value in given.items():
            data = file[f"step1/outputs/{name}"]
            assert np.array_equal(data[()], value), name
            assert data.chunks is not None
            assert np.prod([-(-n // c) * c for n, c in zip(data.shape, data.chunks, strict=True)]) < 1.2 * value.size
        stored = {name: file[f"step1/outputs/{name}"].id.get_storage_size() / given[name].nbytes for name in given}
    assert stored["sparse"] < 0.3
    assert stored["constant"] < 0.2
    assert stored["dense"] < 1.001
    assert stored["half"] < 0.7  # chunks that are worth it are coded though others of the tensor are not


def test_a_disk_that_fails_while_it_is_told_to_begin_leaves_the_old_file(tmp_path, monkeypatch):
    """It tells of a fault once: whoever asks again at the end hears nothing of it."""
    asked, path = [], tmp_path / "t.h5"
    path.write_bytes(b"an earlier file")

    def fails(_):
        asked.append(0)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("parity.traces.writer._SAVED", 1 << 16)
    monkeypatch.setattr("parity.traces.writer.os.fsync", fails)
    with pytest.raises(BadUsage, match="cannot be written"):
        _written(path, lambda: monkeypatch.setattr("parity.traces.writer.os.fsync", lambda _: None))
    assert asked
    assert path.read_bytes() == b"an earlier file"
    assert [item.name for item in tmp_path.iterdir()] == ["t.h5"]


def _written(path, then):
    with writing(path, "-o", "0") as writer:
        writer.put("step1/outputs", "x", np.random.default_rng(0).normal(size=(80, 1000)))
        writer.settle()
        then()


def test_a_file_is_read_by_plain_hdf5(trace):
    with h5py.File(trace) as file, Trace(trace) as held:
        assert np.array_equal(file["step1/outputs/c1"][...], held.held("step1/outputs", "c1").value())


def test_a_trace_is_written_while_another_file_is_read(tmp_path):
    """Two threads in HDF5 at once damage what it holds in memory, or end the process."""
    with h5py.File(tmp_path / "read.h5", "w") as file:
        for n in range(50):
            file[f"g/{n}"] = np.ones(1000, np.float32)
    values = np.random.default_rng(0).normal(size=(8, 640)).astype(np.float32)  # a small chunk is soon packed
    with writing(tmp_path / "run.h5", "--output", "0.1.0") as writer:
        for n in range(600):
            writer.put("step1/outputs", f"t{n}", values)
            if n % 10 == 0:
                with h5py.File(tmp_path / "read.h5") as file:
                    assert all(file[f"g/{k}"][0] == 1 for k in range(50))
        writer.settle()
    with h5py.File(tmp_path / "run.h5") as file:
        assert all(np.array_equal(file[f"step1/outputs/t{n}"][0], values[0]) for n in range(600))
