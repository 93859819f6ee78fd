"""Arrays as bytes: an .npz whose bytes depend on nothing but the arrays, read back without pickle."""

import hashlib
import io
import zipfile
from collections.abc import Mapping

import numpy as np

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest moment that a zip entry can carry
_ZIP = b"PK\x03\x04"


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An uncompressed .npz: entries by name, one fixed time stamp, little-endian, C order.

    Not compressed on purpose: the bytes then depend on no compressor's version. Object arrays are refused (ValueError).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.create_system = 3  # otherwise the platform's number
            entry = io.BytesIO()
            np.lib.format.write_array(entry, _canonical(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(info, entry.getvalue())
    return buffer.getvalue()


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz given as bytes. Pickled entries and damaged files are refused (ValueError)."""
    if data[:4] != _ZIP:  # numpy would take it for a pickle, and say how to load that
        raise ValueError("not a readable .npz: no zip archive")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as refusal:  # zipfile and numpy raise a dozen kinds for damaged bytes
        raise ValueError(f"not a readable .npz: {refusal}") from refusal


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (64 hex) over names, dtypes, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = _canonical(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _canonical(array) -> np.ndarray:
    array = np.asarray(array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
