"""Look through an HDF5 file for what reaches outside it, or declares more than it holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py

from keras_edgeq.errors import UnsupportedModelError

# Filters that HDF5 has built in; another one is a library that it would look for and load.
FILTERS = frozenset({
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET,
    h5py.h5z.FILTER_LZF,
})  # fmt: skip


def check_hdf5(name: str, file: h5py.File, most_bytes: int) -> None:
    """Raise on what no writer of Keras makes: reading it would read other files, or fill memory.

    Args:
        name: of the file, for the error.
        file: open for reading; no data set of it is read.
        most_bytes: what its data sets may declare together.

    Raises:
        UnsupportedModelError: soft and external links, external storage, virtual data sets, filters
            from plug-ins, or more data than `most_bytes`.
    """
    declared = 0
    for place, item in _items(name, file):
        if not isinstance(item, h5py.Dataset):
            continue
        plan = item.id.get_create_plist()
        if plan.get_external_count():
            raise _refusal(name, place, "keeps its data in another file")
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            raise _refusal(name, place, "is put together from data sets of other files")
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if not filters <= FILTERS:
            raise _refusal(name, place, "is packed by a filter that is not part of HDF5")
        declared += math.prod(item.shape or ()) * item.dtype.itemsize
    if declared > most_bytes:
        raise UnsupportedModelError(
            f"{name} declares weights of {declared} bytes, far more than it holds; it is damaged."
        )


def _items(name: str, file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield every object once, with its place in the file."""
    groups: list[tuple[str, h5py.Group]] = [("", file["/"])]
    seen = {_address(file["/"])}
    while groups:
        place, group = groups.pop()
        for key in group:
            inside = f"{place}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _refusal(name, inside, "is a link to another place or file")
            item = group[key]
            if _address(item) in seen:
                continue
            seen.add(_address(item))
            yield inside, item
            if isinstance(item, h5py.Group):
                groups.append((inside, item))


def _address(item: h5py.Group | h5py.Dataset) -> object:
    return h5py.h5o.get_info(item.id).addr


def _refusal(name: str, place: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name}: {place[:100]!r} {what}. Keras writes no such file, and loading it would carry in "
        "what lies outside it; save the model again with tf_keras: model.save('model.keras')."
    )
