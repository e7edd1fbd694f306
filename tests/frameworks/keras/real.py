"""Files that real Kerases wrote, and what those computed next (see traces/keras/README.md)."""

import functools
import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np

PACKED = Path(__file__).parents[3] / "traces" / "keras"
SAMPLE = 300
"""Elements that are kept of a large array of an oracle."""


def _unpacked():
    """The folder with the files of every version, unpacked once for all test runs of this machine's user."""
    packed = sorted(PACKED.glob("*.tar.xz"))
    digest = hashlib.sha256()
    for path in packed:
        digest.update(path.name.encode() + path.read_bytes())
    home = Path(tempfile.gettempdir()) / f"parity-keras-{os.getuid()}-{digest.hexdigest()[:16]}"
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=home.parent) as made:
            for path in packed:
                folder = Path(made, "all", path.name.removesuffix(".tar.xz"))
                folder.mkdir(parents=True)
                with tarfile.open(path) as tar:
                    for member in tar:
                        (folder / member.name).write_bytes(tar.extractfile(member).read())
            try:
                Path(made, "all").rename(home)
            except OSError:  # another run was first
                assert home.exists()
    return home


TRACES = _unpacked()


def files(pattern="*/*"):
    """The real files that match: whole models that were compiled."""
    return [p for p in every(pattern) if not any(word in p.name for word in ("weights", "uncompiled"))]


def every(pattern="*/*"):
    """The real files that match, those of weights alone and of uncompiled models too."""
    return sorted(p for p in TRACES.glob(pattern) if p.suffix in (".h5", ".keras"))


def sample(array):
    """The elements of an array that an oracle keeps: all of a small one, else the same few every time."""
    flat = np.asarray(array).ravel()
    return flat if flat.size <= SAMPLE else flat[np.random.default_rng(flat.size).choice(flat.size, SAMPLE, False)]


@functools.cache
def _batch():
    with np.load(PACKED / "batch.npz") as held:
        return dict(held)


@functools.cache
def oracle(path):
    """What the Keras that wrote a file computed next: x, y, pred, and of compiled models loss and next_w###."""
    with np.load(path.with_name(path.name.split(".")[0] + ".oracle.npz")) as held:
        found = {**_batch(), **held}
    if "next_step_loss" in found:  # as it was recorded, before it was packed
        found["loss"] = found["next_step_loss"][:1]
    return {key: sample(value) if key.startswith("next_w") else value for key, value in found.items()}
