"""The reference's parameters put into the Keras model, through named axes.

A `Link` says how one Keras parameter is made of the reference's. The same linear map carries gradients and updates, so
everything about parameters is compared in the Keras layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.align import Alignment, Pair
from parity.layers import BatchNorm, Conv, ConvTranspose
from parity.network import STATISTICS, Network, Param

__all__ = ["Blocks", "Joined", "Link", "Transferred", "Turned", "links", "places", "transferred"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Link:
    """One Keras parameter and the reference's parameters that it is made of.

    Attributes:
        pair: whose parameter it is.
        role: the neutral word, as the report names it: kernel, bias, gamma, beta, mean, variance ...
        ref: ids of the reference's parameters; empty where the reference has none.
        keras: id of the Keras parameter; empty where Keras has none.
        to_keras: reference values (by id) → array in the Keras layout; None where it cannot be loaded.
        linear: whether `to_keras` maps gradients and updates too (a variance made of a deviation: no).
        problem: what does not fit, in words; empty where all does.
    """

    pair: Pair
    role: str
    ref: tuple[str, ...]
    keras: str
    to_keras: Callable[[Mapping[str, Array]], Array] | None
    linear: bool = True
    problem: str = ""

    @property
    def plain(self) -> bool:
        """Whether `to_keras` takes one array and leaves its elements in their row-major order."""
        made = self.to_keras
        return isinstance(made, Joined) and made.blocks is None and made.cut is None and len(made.sources) == 1

    @property
    def learned(self) -> bool:
        """Whether the gradient moves it, in a layout that both sides share; not a running statistic."""
        return self.linear and self.role not in STATISTICS


@dataclass(frozen=True)
class Blocks:
    """Grouped filters in a kernel with fewer groups: each block on the channels it sees, zeros elsewhere.

    The third axis counts the channels of one group, which it reads or, in a transposed convolution, makes; the last one
    counts all channels of the other kind.

    Attributes:
        depth: extent of the third axis.
        outputs: extent of the last axis.
        groups: how many.
        ratio: how many of them one group of the denser kernel holds.
    """

    depth: int
    outputs: int
    groups: int
    ratio: int

    def within(self, inside: int) -> Iterator[slice]:
        """The outputs of those groups that are the so-many-th (from 0) in the group that holds them."""
        each = self.outputs // self.groups
        for group in range(inside, self.groups, self.ratio):
            yield slice(group * each, (group + 1) * each)

    def __call__(self, value: Array) -> Array:
        """The denser kernel, of filters h w depth outputs."""
        made = np.zeros((*value.shape[:2], self.depth * self.ratio, self.outputs), value.dtype)
        for inside in range(self.ratio):
            for span in self.within(inside):
                made[:, :, inside * self.depth : (inside + 1) * self.depth, span] = value[..., span]
        return made


@dataclass(frozen=True)
class Joined:
    """How a Keras parameter is made of the reference's pieces: joined along their last axis, cut, put in blocks.

    Attributes:
        sources: ids of the pieces.
        cut: which columns of the joined ones it takes; None for all.
        blocks: how they lie in a denser kernel; None where they are the whole.
        shape: of the Keras parameter.
    """

    sources: tuple[str, ...]
    cut: slice | None
    blocks: Blocks | None
    shape: tuple[int, ...]

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The Keras parameter."""
        pieces = [values[key] for key in self.sources]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
        whole = whole if self.cut is None else whole[..., self.cut]
        return (whole if self.blocks is None else self.blocks(whole)).reshape(self.shape)


@dataclass(frozen=True)
class Turned:
    """A dense kernel whose rows go through the map that it reads in another order than the reference's.

    Attributes:
        made: the kernel with the reference's order of rows.
        extents: of the map, h w c.
        ref, keras: the map's axes in the order in which each side's rows go through them.
    """

    made: Joined
    extents: tuple[int, ...]
    ref: tuple[int, ...]
    keras: tuple[int, ...]

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The kernel as Keras has it."""
        return self.plain(self.made(values), self.ref).transpose(*self.keras, 3).reshape(self.made.shape)

    def unturned(self, kernel: Array) -> Array:
        """The kernel that Keras would have if its map were flattened as it is."""
        return self.plain(kernel, self.keras).reshape(self.made.shape)

    def plain(self, kernel: Array, order: tuple[int, ...]) -> Array:
        """A kernel whose rows go through the map in some order, as h w c outputs."""
        cube = kernel.reshape(*(self.extents[axis] for axis in order), -1)
        return cube.transpose(*np.argsort(order), 3)


def links(alignment: Alignment) -> tuple[Link, ...]:
    """Every parameter of every pair, linked to its counterpart, each Keras parameter once."""
    found: list[Link] = []
    seen: set[str] = set()
    for pair in alignment.pairs:
        for link in _pair_links(pair, alignment.ref, alignment.keras):
            key = link.keras or "ref:" + ",".join(link.ref)
            if key not in seen:
                seen.add(key)
                found.append(link)
    return tuple(found)


def transferred(all_links: Iterable[Link], values: Mapping[str, Array]) -> dict[str, Array]:
    """Keras id → the reference's values in the Keras layout, for every link that can be loaded."""
    return dict(Transferred(all_links, values))


class Transferred(Mapping[str, Array]):
    """What `transferred` makes, made one by one when asked for; so values may lie in a file until then."""

    def __init__(self, all_links: Iterable[Link], values: Mapping[str, Array]) -> None:
        self.values_of = values
        self.links = {
            link.keras: link
            for link in all_links
            if link.to_keras is not None and link.keras and all(key in values for key in link.ref)
        }

    def __getitem__(self, key: str) -> Array:
        link = self.links[key]
        assert link.to_keras is not None
        return link.to_keras({key: self.values_of[key] for key in link.ref})

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)

    def __contains__(self, key: object) -> bool:
        return key in self.links


_SAME_ROLE = {"deviation": "variance", "variance": "deviation"}


def _pair_links(pair: Pair, ref: Network, keras: Network) -> list[Link]:
    made: list[Link] = []
    ref_left = dict(pair.ref.params)
    for role, keys in pair.keras.params.items():
        source = role if role in ref_left else _SAME_ROLE.get(role, "")
        if source not in ref_left:
            fallback = _by_shape(pair, keys, ref_left, ref, keras)
            source = fallback or source
        if source in ref_left:
            made += _linked(pair, role, ref_left.pop(source), source, keys, ref, keras)
        else:
            made += [_only_keras(pair, role, key, keras.params[key]) for key in keys]
    for role, keys in ref_left.items():
        made.append(_only_ref(pair, role, keys, ref))
    return made


def _by_shape(
    pair: Pair, keys: tuple[str, ...], left: Mapping[str, tuple[str, ...]], ref: Network, keras: Network
) -> str:
    """For layers outside the vocabulary: the reference's offset for an offset, or its first one of the same shape."""
    if type(pair.ref.kind) is type(pair.keras.kind) and pair.ref.kind.roles:
        return ""
    shape = _squeezed(keras.params[keys[0]].shape)
    alike = [role for role, ids in left.items() if _squeezed(ref.params[ids[0]].shape) == shape]
    offset = {"bias": "beta", "beta": "bias"}.get(keras.params[keys[0]].role, "")
    return offset if offset in alike else next(iter(alike), "")


def _linked(
    pair: Pair, role: str, sources: tuple[str, ...], source: str, targets: tuple[str, ...], ref: Network, keras: Network
) -> list[Link]:
    """Links of one role: the reference's pieces joined along their last axis, then cut for the Keras pieces."""
    if source != role and {source, role} == {"deviation", "variance"}:
        assert isinstance(pair.ref.kind, BatchNorm)
        mine, theirs = ref.params[sources[0]].shape, keras.params[targets[0]].shape
        if math.prod(mine) != math.prod(theirs):
            problem = f"the reference's {source} is {_extent(mine)}, the Keras {role} {_extent(theirs)}"
            return [Link(pair, role, sources, targets[0], None, linear=False, problem=problem)]
        convert = _statistic(source, pair.ref.kind.epsilon, sources[0])
        return [Link(pair, role, sources, targets[0], convert, linear=False)]
    first = ref.params[sources[0]]
    whole = list(first.shape)
    if len(sources) > 1 and whole:
        whole[-1] = sum(_width(ref.params[key]) for key in sources)
    total = sum(_width(keras.params[key]) for key in targets)
    made: list[Link] = []
    start = 0
    for key in targets:
        param = keras.params[key]
        width = _width(param)
        piece: tuple[int, ...] = tuple(whole)
        cut: slice | None = None
        if len(targets) > 1 and whole and total == whole[-1]:
            piece, cut = (*whole[:-1], width), slice(start, start + width)
        start += width
        fits, blocks = _layout(first.axes, piece, param.axes, param.shape, pair)
        problem = ""
        if not fits or blocks is not None:
            problem = f"the reference's {role} is {_extent(piece)}, the Keras one {_extent(param.shape)}"
        to_keras: Callable[[Mapping[str, Array]], Array] | None = None
        if fits:
            to_keras = Joined(sources, cut, blocks, tuple(param.shape))
            if role == "kernel" and pair.ref.rows != pair.keras.rows:
                to_keras = _turned(to_keras, pair)
        made.append(Link(pair, role, sources, key, to_keras, problem=problem))
    return made


def _width(param: Param) -> int:
    """Extent of the last axis, along which the pieces of one parameter are joined; a scalar has one."""
    return param.shape[-1] if param.shape else 1


def _statistic(source: str, epsilon: float, key: str) -> Callable[[Mapping[str, Array]], Array]:
    """MatConvNet keeps sqrt(variance + epsilon), Keras the variance (vl_nnbnorm.cu; SEMANTICS of the moments)."""

    def to_variance(values: Mapping[str, Array]) -> Array:
        wide = values[key].astype(np.float64)
        return (wide * wide - epsilon).astype(values[key].dtype)

    def to_deviation(values: Mapping[str, Array]) -> Array:
        return np.sqrt(values[key].astype(np.float64) + epsilon).astype(values[key].dtype)

    return to_variance if source == "deviation" else to_deviation


def _turned(made: Joined, pair: Pair) -> Turned | None:
    """A kernel whose rows Keras has in another order; None where the map that both read is not known."""
    extents = (pair.keras if pair.keras.rows else pair.ref).fed
    if extents is None or len(extents) != 3 or math.prod(int(d or 0) for d in extents) != math.prod(made.shape[:-1]):
        return None
    plain = (0, 1, 2)
    return Turned(made, tuple(int(d or 0) for d in extents), pair.ref.rows or plain, pair.keras.rows or plain)


def _layout(
    ref_axes: str, ref_shape: tuple[int, ...], keras_axes: str, keras_shape: tuple[int, ...], pair: Pair
) -> tuple[bool, Blocks | None]:
    """Whether an array of the reference's axes and shape becomes one of the Keras axes and shape; and in which blocks.

    `h w i o` → `i o` joins h, w, i (the order in which Keras flattens a map); → `h w c m` parts the outputs of a
    depthwise convolution. Grouped filters go into a denser kernel as blocks with zeros between.
    """
    same = _squeezed(ref_shape) == _squeezed(keras_shape)
    if same and (len(ref_axes.split()) == len(keras_axes.split()) or len(_squeezed(ref_shape)) == 1):
        return True, None
    flat = {"h w i o", "i o", "h w c m", "w i o", "d h w i o"}
    if ref_axes in flat and keras_axes in flat and math.prod(ref_shape) == math.prod(keras_shape):
        outputs = _outputs(ref_axes, ref_shape), _outputs(keras_axes, keras_shape)
        spatial = ref_axes == "i o" or keras_axes == "i o" or ref_shape[:-2] == keras_shape[:-2]
        if outputs[0] == outputs[1] and spatial:
            return True, None
    kind, other = pair.ref.kind, pair.keras.kind
    if ref_axes == "h w i o" and isinstance(kind, Conv) and isinstance(other, Conv) and kind.groups > other.groups:
        blocks = _blocks(ref_shape, keras_shape, kind.groups, other.groups)
        return blocks is not None, blocks
    if isinstance(kind, ConvTranspose) and isinstance(other, ConvTranspose) and kind.groups > other.groups:
        blocks = _blocks(ref_shape, keras_shape, kind.groups, other.groups)
        return blocks is not None, blocks
    return False, None


def _outputs(axes: str, shape: tuple[int, ...]) -> int:
    return shape[-1] * shape[-2] if axes == "h w c m" else shape[-1]


def _blocks(ref_shape: tuple[int, ...], keras_shape: tuple[int, ...], groups: int, kept: int) -> Blocks | None:
    """The blocks that grouped filters are in a kernel with fewer groups; None where they do not fit into it."""
    height, width, depth, outputs = ref_shape
    ratio = groups // max(kept, 1)
    dense = height * width * depth * ratio * outputs
    if groups % max(kept, 1) or outputs % groups or dense != math.prod(keras_shape) or keras_shape[-1] != outputs:
        return None
    return Blocks(depth, outputs, groups, ratio)


def _only_keras(pair: Pair, role: str, key: str, param: Param) -> Link:
    """A parameter that only Keras has: it gets the value that changes nothing, where that is known to be right."""
    if pair.ref.unseen:
        unknown = f"which {role} the reference has in its place is not known"
        return Link(pair, role, (), key, None, linear=False, problem=unknown)
    neutral = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "mean": 0.0, "variance": 1.0}.get(role)
    fill = None if neutral is None else (lambda values: np.full(param.shape, neutral, np.float32))
    return Link(pair, role, (), key, fill, linear=False, problem=f"the reference has no {role}, Keras has one")


def _only_ref(pair: Pair, role: str, keys: tuple[str, ...], ref: Network) -> Link:
    return Link(pair, role, keys, "", None, problem=f"the reference has a {role}, Keras has none")


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(d for d in shape if d != 1) or (1,)


def _extent(shape: Sequence[int]) -> str:
    return "×".join(str(d) for d in shape) or "a scalar"


def places(link: Link, params: Mapping[str, Param]) -> Array:
    """Where each element of the Keras layout comes from: 0 for a zero, else 1 + its place in the reference's arrays."""
    assert link.to_keras is not None
    given: dict[str, Array] = {}
    start = 1
    for key in link.ref:
        shape = params[key].shape
        size = int(np.prod(shape))
        given[key] = np.arange(start, start + size, dtype=np.float64).reshape(shape)
        start += size
    return np.asarray(link.to_keras(given)).round().astype(np.int64)
