"""Attributes whose storage is damaged are refused before the HDF5 library follows them: it would crash or go round."""

import struct

import pytest

from parity.errors import BadFile
from parity.frameworks.keras.files import read
from parity.frameworks.keras.heaps import soundly_stored
from tests.frameworks.keras.real import TRACES

WHOLE = (TRACES / "k2.1.6_tf1.8/reg_l2.h5").read_bytes()
NAME = WHOLE.index(b"model_config\0")
TYPE = WHOLE.index(b"\x19\x01\x00\x00", NAME)  # of variable length, text
HEAP = WHOLE.index(b"GCOL")
REFERENCE = WHOLE.index(struct.pack("<Q", HEAP), NAME + 13) - 4


def _with(at, data):
    return WHOLE[:at] + data + WHOLE[at + len(data) :]


DAMAGED = {
    "a sequence, not text": _with(TYPE + 1, b"\x13"),
    "a length of gigabytes": _with(REFERENCE, struct.pack("<I", 0x7F000010)),
    "a heap elsewhere": _with(REFERENCE + 4, struct.pack("<Q", HEAP + 64)),
    "another piece of the heap": _with(REFERENCE + 12, struct.pack("<I", 99)),
    "a heap that goes on": _with(HEAP + 8, struct.pack("<Q", 0x9000)),
    "a heap beyond the end": _with(HEAP + 8, struct.pack("<Q", 1 << 40)),
    "a piece that goes round": _with(HEAP + 16 + 8, struct.pack("<Q", (1 << 64) - 16)),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_storage_is_one_line(tmp_path, what):
    path = tmp_path / "damaged.h5"
    path.write_bytes(DAMAGED[what])
    with pytest.raises(BadFile, match=r"model_config|is damaged") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_sound_storage_is_found():
    path = TRACES / "k2.1.6_tf1.8/reg_l2.h5"
    assert soundly_stored(path, "model_config")
    assert not soundly_stored(path, "no_such_name")
