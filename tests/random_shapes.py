"""Steps of the random networks that move, join and shorten values (``random_steps`` has those that compute), and the
table of all."""

from random_steps import (
    Draw,
    Maker,
    Shape,
    activation,
    adaptive_pool,
    attention_by_products,
    attention_fused,
    attention_layer,
    bilinear_by_products,
    convolution,
    convolution_norm_activation,
    cross_attention,
    depthwise_separable,
    divisor,
    folded_convolution,
    functional_convolution,
    functional_linear,
    gate,
    linear_layer,
    norm_of_channels,
    norm_of_features,
    norm_of_vectors,
    pool,
    product_of_heads,
    product_of_sequences,
    product_of_vectors,
    residual_block,
    transposed_convolution,
    weight_norm,
)


def residual(draw: Draw, x: str, shape: Shape) -> str:
    y = draw.rng.choice(draw.like(shape))
    return str(draw.one(f"{x} + {y}", f"{x} * {y}", f"{x} - 0.5 * {y}", f"torch.maximum({x}, {y})"))


def concatenation(draw: Draw, x: str, shape: Shape) -> str:
    axis = draw.rng.randint(1, len(shape))
    rest = shape[: axis - 1] + shape[axis:]
    alike = [name for name, other in draw.values.items() if len(other) == len(shape)]
    y = draw.rng.choice([name for name in alike if draw.values[name][: axis - 1] + draw.values[name][axis:] == rest])
    return f"torch.cat([{x}, {y}], {draw.one(axis, axis - len(shape) - 1)})"


def stacked(draw: Draw, x: str, shape: Shape) -> str:
    y = draw.rng.choice(draw.like(shape))
    return f"torch.stack([{x}, {y}], {draw.rng.randint(1, len(shape))})"


def broadcast(draw: Draw, x: str, shape: Shape) -> str:
    """A summary of one dimension, spread over it again."""
    axis = draw.rng.randint(1, len(shape))
    kind = draw.one("mean({0}, keepdim=True)", "amax({0}, keepdim=True)", "sum({0}, keepdim=True).tanh()")
    return f"{x} - {x}.{str(kind).format(axis)}"


def joined(draw: Draw, x: str, shape: Shape) -> str:
    """Any two values: each flattened to a vector, a matrix for each."""
    name = draw.rng.choice(list(draw.values))
    outputs = draw.width()
    sizes = [1, 1]
    for index, own in enumerate((shape, draw.values[name])):
        for size in own:
            sizes[index] *= size
    first, second = (draw.layer(f"Linear({size}, {outputs})") for size in sizes)
    return f"{first}({x}.flatten(1)) + {second}({name}.flatten(1))"


def flattened(draw: Draw, x: str, shape: Shape) -> str:
    return str(draw.one(f"{x}.flatten(1)", f"{x}.flatten(2)", f"{x}.flatten(1, 2)", f"{x}.reshape({x}.shape[0], -1)"))


def unflattened(draw: Draw, x: str, shape: Shape) -> str:
    axis = draw.rng.randint(1, len(shape))
    part = divisor(draw, shape[axis - 1])
    return f"{x}.unflatten({axis}, ({part}, -1))"


def viewed(draw: Draw, x: str, shape: Shape) -> str:
    """Sizes merged and cut anew."""
    total = 1
    for size in shape:
        total *= size
    return f"{x}.reshape({x}.size(0), -1, {divisor(draw, total)})"


def permuted(draw: Draw, x: str, shape: Shape) -> str:
    order = list(range(1, len(shape) + 1))
    draw.rng.shuffle(order)
    return str(draw.one(f"{x}.permute(0, {', '.join(map(str, order))})", f"{x}.transpose({order[0]}, {order[-1]})"))


def sliced(draw: Draw, x: str, shape: Shape) -> str:
    axis = draw.rng.randint(1, len(shape))
    colons, half = ":, " * axis, shape[axis - 1] // 2
    forms = (
        f"{x}[{colons}1:]",
        f"{x}[{colons}::2]",
        f"{x}[{colons}{half}]",
        f"{x}[{colons}:-1]",
        f"{x}.narrow({axis}, {half}, 1)",
        f"{x}.select({axis}, -1)",
        f"{x}[{colons}[0, {half}]]",
        f"{x}.index_select({axis}, torch.tensor([{half}, 0]))",
        f"{x}.flip({axis})",
        f"{x}.roll(1, {axis})",
        f"{x}.unsqueeze({axis})",
        f"{x}.squeeze({axis})",
    )
    return str(draw.one(*forms))


def split(draw: Draw, x: str, shape: Shape) -> str:
    axis = draw.rng.randint(1, len(shape))
    size = shape[axis - 1]
    forms = (
        f"sum(part.tanh() for part in {x}.chunk(2, {axis}))",
        f"torch.cat({x}.chunk(3, {axis})[::-1], {axis})",
        f"torch.cat([part.relu() for part in {x}.split({max(1, size // 2)}, {axis})], {axis})",
        f"{x}.split([1, {size - 1}], {axis})[1]",
        f"sum({x}.unbind({axis})) / {size}",
        f"{x}.tensor_split(2, {axis})[0]",
    )
    return str(draw.one(*forms))


def padded(draw: Draw, x: str, shape: Shape) -> str:
    sides = tuple(draw.rng.randint(0, 2) for _ in range(2 * draw.rng.randint(1, max(1, len(shape) - 1))))
    return f"F.pad({x}, {sides}, {draw.one('', 'value=0.5', repr('reflect'), repr('replicate'), repr('circular'))})"


def interpolated(draw: Draw, x: str, shape: Shape) -> str:
    mode = {2: "linear", 3: "bilinear", 4: "trilinear"}[len(shape)]
    sizes = tuple(draw.rng.randint(1, size + 3) for size in shape[1:])
    forms = (
        f"F.interpolate({x}, scale_factor=2)",
        f"F.interpolate({x}, size={sizes})",
        f"F.interpolate({x}, size={sizes}, mode='nearest-exact')",
        f"F.interpolate({x}, scale_factor=1.5, mode={mode!r}, align_corners={draw.chance(0.5)})",
        f"F.interpolate({x}, size={sizes}, mode={mode!r})",
    )
    return str(draw.one(*forms))


def image_moves(draw: Draw, x: str, shape: Shape) -> str:
    groups = divisor(draw, shape[0])
    forms = (
        f"F.pixel_shuffle({x}, 2)",
        f"F.pixel_unshuffle({x}, 2)",
        f"F.channel_shuffle({x}, {groups})",
        f"F.unfold({x}, 2, stride=2)",
        f"F.interpolate({x}, scale_factor=2, mode='bicubic')",
        f"{x}.rot90(1, (2, 3))",
        f"F.local_response_norm({x}, 2)",
    )
    return str(draw.one(*forms))


def reduced(draw: Draw, x: str, shape: Shape) -> str:
    axis = draw.rng.randint(1, len(shape))
    forms = (
        f"{x}.mean({axis})",
        f"{x}.sum({axis}) / {shape[axis - 1]}",
        f"{x}.amax({axis})",
        f"{x}.max({axis}).values",
        f"{x}.mean({tuple(range(2, len(shape) + 1))})",
        f"torch.logsumexp({x}, {axis})",
        f"{x}.cumsum({axis}) / {shape[axis - 1]}",
        f"{x}.norm(dim={axis})",
        f"{x}.topk(1, {axis}).values",
        f"{x}.sort({axis}).values",
    )
    return str(draw.one(*forms))


def again(draw: Draw, x: str, shape: Shape) -> str:
    """A layer that is there already, once more."""
    layers = [name for name, text in draw.members.items() if text.startswith(("nn.Linear", "nn.Conv", "nn.Batch"))]
    return f"self.{draw.rng.choice(layers)}({x})"


def tied(draw: Draw, x: str, shape: Shape) -> str:
    """The weight of a linear layer that is there already, as it is or the other way."""
    layers = [name for name, text in draw.members.items() if text.startswith("nn.Linear")]
    layer = draw.rng.choice(layers)
    return str(draw.one(f"F.linear({x}, self.{layer}.weight)", f"{x} @ self.{layer}.weight"))


_COMPUTE: tuple[tuple[tuple[int, ...], int, tuple[Maker, ...]], ...] = (
    ((1, 2, 3, 4), 3, (linear_layer, functional_linear, activation)),
    ((1, 2, 3, 4), 1, (norm_of_features, weight_norm)),
    ((1,), 2, (product_of_vectors, norm_of_vectors)),
    ((2,), 1, (product_of_sequences, product_of_sequences, bilinear_by_products)),
    ((3,), 2, (product_of_heads,)),
    ((3, 4), 1, (folded_convolution,)),
    ((2,), 1, (attention_by_products, attention_fused, attention_layer, cross_attention)),
    ((2, 3, 4), 3, (convolution,)),
    ((2, 3, 4), 1, (depthwise_separable, functional_convolution, transposed_convolution, residual_block)),
    ((2, 3, 4), 1, (convolution_norm_activation, pool, adaptive_pool, norm_of_channels)),
)
_MOVE: tuple[tuple[tuple[int, ...], int, tuple[Maker, ...]], ...] = (
    ((1, 2, 3, 4), 1, (gate, residual, concatenation, stacked, broadcast, joined, sliced, split, reduced, unflattened)),
    ((1, 2, 3, 4), 1, (padded, again, again, tied)),
    ((2, 3, 4), 1, (flattened, viewed, permuted, interpolated)),
    ((3,), 2, (image_moves,)),
)
#: All makers with the ranks, without the batch, that they take; as often as they shall be drawn.
MAKERS: tuple[tuple[tuple[int, ...], Maker], ...] = tuple(
    (ranks, maker) for ranks, weight, makers in (*_COMPUTE, *_MOVE) for maker in makers for _ in range(weight)
)
