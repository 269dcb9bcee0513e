"""Steps of the random networks: each maker writes one expression of torch from values at hand, as source text.

A maker gets a ``Draw`` and the value to start from and returns the expression; what it needs of layers and parameters
it declares on the draw. Whether the sizes fit is not its business: the builder runs the expression and drops those that
torch refuses. ``MAKERS`` maps a name to (ranks without the batch, maker); add a kind of layer by adding a function.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass
class Draw:
    """Random choices, and the layers and parameters (name to the expression that makes each) declared so far.

    values: shapes without the batch of the floating values at hand.
    """

    rng: random.Random
    values: dict[str, Shape] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)

    def one(self, *options: object) -> object:
        return self.rng.choice(options)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def width(self) -> int:
        return self.rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16))

    def layer(self, text: str) -> str:
        """A layer made by ``nn.<text>``; returns how forward reads it."""
        kind = text.partition("(")[0].rpartition(".")[2].lower()
        return self._member(kind, f"nn.{text}" if not text.startswith("torch") else text)

    def weight(self, *shape: int) -> str:
        """A parameter with columns of about unit length."""
        return self._member(
            "weight", f"nn.Parameter(torch.randn({', '.join(map(str, shape))}) / {shape[-1] ** 0.5:.2f})"
        )

    def like(self, shape: Shape) -> list[str]:
        """Values of this shape."""
        return [name for name, other in self.values.items() if other == shape]

    def _member(self, kind: str, text: str) -> str:
        name = f"{kind}_{len(self.members)}"
        self.members[name] = text
        return f"self.{name}"


Maker = Callable[[Draw, str, Shape], str]


def divisor(draw: Draw, *sizes: int) -> int:
    """A common divisor."""
    return draw.rng.choice([part for part in range(1, min(sizes) + 1) if all(size % part == 0 for size in sizes)])


def linear_layer(draw: Draw, x: str, shape: Shape) -> str:
    return f"{draw.layer(f'Linear({shape[-1]}, {draw.width()}, bias={draw.chance(0.7)})')}({x})"


def weight_norm(draw: Draw, x: str, shape: Shape) -> str:
    text = f"torch.nn.utils.parametrizations.weight_norm(nn.Linear({shape[-1]}, {draw.width()}))"
    return f"{draw._member('normed', text)}({x})"


def functional_linear(draw: Draw, x: str, shape: Shape) -> str:
    outputs = draw.width()
    bias = draw.one("", f", {draw.weight(outputs)}")
    forms = (
        f"F.linear({x}, {draw.weight(outputs, shape[-1])}{bias})",
        f"F.linear({x}, {draw.weight(shape[-1], outputs)}.t(){bias})",
        f"{x} @ {draw.weight(shape[-1], outputs)}",
        f"torch.matmul({x}, {draw.weight(outputs, shape[-1])}.T) * 0.5",
        f"torch.einsum('...i,io->...o', {x}, {draw.weight(shape[-1], outputs)})",
        f"torch.tensordot({x}, {draw.weight(shape[-1], outputs)}, 1)",
    )
    return str(draw.one(*forms))


def product_of_vectors(draw: Draw, x: str, shape: Shape) -> str:
    outputs = draw.width()
    weight, bias = draw.weight(shape[-1], outputs), draw.weight(outputs)
    forms = (
        f"torch.addmm({bias}, {x}, {weight})",
        f"torch.addmm({bias}, {x}, {weight}, beta=0.5, alpha=2)",
        f"torch.mm({x}, {weight})",
        f"torch.einsum('bi,oi->bo', {x}, {draw.weight(outputs, shape[-1])})",
        f"torch.matmul({draw.weight(outputs, shape[-1])}, {x}.t()).t()",
        f"torch.matmul({x}, {draw.weight(shape[-1])}).unsqueeze(1)",
    )
    return str(draw.one(*forms))


def product_of_sequences(draw: Draw, x: str, shape: Shape) -> str:
    time, width = shape
    outputs, heads = draw.width(), draw.one(1, 2, 3)
    weight = draw.weight(width, outputs)
    forms = (
        f"torch.bmm({x}, {weight}.expand({x}.shape[0], -1, -1))",
        f"torch.bmm({x}, {weight}.unsqueeze(0).repeat({x}.shape[0], 1, 1))",
        f"torch.matmul({draw.weight(outputs, time)}, {x})",
        f"torch.einsum('btd,dhe->bthe', {x}, {draw.weight(width, heads, outputs)})",
        f"torch.einsum('btd,ts->bsd', {x}, {draw.weight(time, outputs)})",
        f"torch.baddbmm({draw.weight(time, outputs)}, {x}, {weight}.expand({x}.shape[0], -1, -1))",
        f"torch.matmul({x}.unsqueeze(2), {draw.weight(time, width, outputs)}).squeeze(2)",
        f"({x}.reshape(-1, {width}) @ {weight}).reshape({x}.shape[0], {time}, {outputs})",
        f"torch.einsum('btd,tde->bte', {x}, {draw.weight(time, width, outputs)})",
        f"torch.bmm({x}.transpose(0, 1), {draw.weight(time, width, outputs)}).transpose(0, 1)",
        f"torch.tensordot({x}, {draw.weight(outputs, time, width)}, ((1, 2), (1, 2)))",
    )
    return str(draw.one(*forms))


def product_of_heads(draw: Draw, x: str, shape: Shape) -> str:
    heads, _, width = shape
    outputs = draw.width()
    weight = draw.weight(heads, width, outputs)
    forms = (
        f"{x} @ {weight}",
        f"torch.matmul({x}, {draw.weight(1, heads, width, outputs)})",
        f"torch.einsum('bhtd,hde->bthe', {x}, {weight})",
        f"torch.einsum('bthd,hde->bthe', {x}.transpose(1, 2), {weight})",
        f"torch.einsum('bhtd,hde->bte', {x}, {weight})",
        f"torch.matmul({draw.weight(heads, outputs, shape[1])}, {x})",
    )
    return str(draw.one(*forms))


def bilinear_by_products(draw: Draw, x: str, shape: Shape) -> str:
    y = draw.rng.choice(draw.like(shape))
    return f"torch.bmm({x}, {y}.transpose(1, 2)) / {shape[-1]}"


def _kernels(draw: Draw, spatial: int, most: int) -> tuple[object, ...]:
    sizes = tuple(draw.rng.randint(1, most) for _ in range(spatial))
    return sizes if draw.chance(0.5) else (sizes[0],) * spatial


def convolution(draw: Draw, x: str, shape: Shape) -> str:
    spatial, inputs = len(shape) - 1, shape[0]
    groups = draw.rng.choice((1, 1, divisor(draw, inputs), inputs))
    outputs = groups * draw.rng.randint(1, max(1, 12 // groups))
    kernel = _kernels(draw, spatial, 4)
    if draw.chance(0.3):
        settings = "padding='same'" if draw.chance(0.7) else "padding='valid'"
    else:
        mode = draw.rng.choice(("zeros", "zeros", "zeros", "reflect", "replicate", "circular"))
        padding = tuple(draw.rng.randint(0, 2) for _ in range(spatial))
        settings = f"stride={_kernels(draw, spatial, 3)}, padding={padding}, padding_mode={mode!r}"
    dilation = _kernels(draw, spatial, 2)
    bias = draw.chance(0.6)
    text = (
        f"Conv{spatial}d({inputs}, {outputs}, {kernel}, {settings}, dilation={dilation}, groups={groups}, bias={bias})"
    )
    return f"{draw.layer(text)}({x})"


def depthwise_separable(draw: Draw, x: str, shape: Shape) -> str:
    spatial, channels = len(shape) - 1, shape[0]
    first = draw.layer(f"Conv{spatial}d({channels}, {channels}, 3, padding=1, groups={channels}, bias=False)")
    second = draw.layer(f"Conv{spatial}d({channels}, {draw.width()}, 1)")
    return f"{second}(F.relu6({first}({x})))"


def functional_convolution(draw: Draw, x: str, shape: Shape) -> str:
    spatial = len(shape) - 1
    weight = draw.weight(draw.width(), shape[0], *(draw.rng.randint(1, 3) for _ in range(spatial)))
    return f"F.conv{spatial}d({x}, {weight}, stride={draw.one(1, 2)}, padding={draw.one(0, 1)})"


def folded_convolution(draw: Draw, x: str, shape: Shape) -> str:
    """Over each frame or channel by itself."""
    spatial, inputs = len(shape) - 2, shape[1]
    layer = draw.layer(f"Conv{spatial}d({inputs}, {draw.width()}, 3, padding=1)")
    return f"{layer}({x}.flatten(0, 1)).unflatten(0, (-1, {shape[0]}))"


def transposed_convolution(draw: Draw, x: str, shape: Shape) -> str:
    spatial, inputs = len(shape) - 1, shape[0]
    groups = divisor(draw, inputs) if draw.chance(0.4) else 1
    outputs, stride = groups * draw.rng.randint(1, max(1, 8 // groups)), draw.rng.randint(1, 3)
    settings = f"padding={draw.one(0, 1)}, output_padding={draw.rng.randint(0, stride - 1)}"
    kernel, dilation = _kernels(draw, spatial, 4), draw.one(1, 1, 2)
    text = f"ConvTranspose{spatial}d({inputs}, {outputs}, {kernel}, {stride}, {settings}, groups={groups}, "
    return f"{draw.layer(text + f'bias={draw.chance(0.6)}, dilation={dilation})')}({x})"


def convolution_norm_activation(draw: Draw, x: str, shape: Shape) -> str:
    """What batch norms are folded into."""
    spatial, outputs = len(shape) - 1, draw.width()
    conv = draw.layer(f"Conv{spatial}d({shape[0]}, {outputs}, 3, stride={draw.one(1, 2)}, padding=1, bias=False)")
    norm = draw.layer(f"BatchNorm{spatial}d({outputs}, affine={draw.chance(0.8)})")
    return f"{draw.layer('ReLU(inplace=True)')}({norm}({conv}({x})))"


def residual_block(draw: Draw, x: str, shape: Shape) -> str:
    spatial, channels = len(shape) - 1, shape[0]
    conv = draw.layer(f"Conv{spatial}d({channels}, {channels}, 3, padding=1)")
    norm = draw.layer(f"BatchNorm{spatial}d({channels})")
    return f"F.relu({x} + {norm}({conv}({x})))"


def pool(draw: Draw, x: str, shape: Shape) -> str:
    spatial = len(shape) - 1
    kind, kernel = draw.rng.choice(("max", "avg")), _kernels(draw, spatial, 3)
    stride, padding = draw.rng.randint(1, 3), draw.rng.choice((0, 0, 1))
    extra = draw.rng.choice(("", ", ceil_mode=True", ", dilation=2" if kind == "max" else ", count_include_pad=False"))
    return f"F.{kind}_pool{spatial}d({x}, {kernel}, stride={stride}, padding={padding}{extra})"


def adaptive_pool(draw: Draw, x: str, shape: Shape) -> str:
    spatial = len(shape) - 1
    return f"F.adaptive_{draw.one('max', 'avg')}_pool{spatial}d({x}, {draw.rng.randint(1, 4)})"


def norm_of_channels(draw: Draw, x: str, shape: Shape) -> str:
    spatial, channels = len(shape) - 1, shape[0]
    kinds = [
        f"BatchNorm{spatial}d({channels})",
        f"InstanceNorm{spatial}d({channels}, affine=True)",
        f"InstanceNorm{spatial}d({channels}, track_running_stats=True)",
        f"GroupNorm({divisor(draw, channels)}, {channels})",
    ]
    return f"{draw.layer(draw.rng.choice(kinds))}({x})"


def norm_of_features(draw: Draw, x: str, shape: Shape) -> str:
    whole = shape if draw.chance(0.2) else shape[-1:]
    forms = (
        f"{draw.layer(f'LayerNorm({whole}, elementwise_affine={draw.chance(0.8)})')}({x})",
        f"{draw.layer(f'RMSNorm({shape[-1]}, eps=1e-5)')}({x})",
        f"{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-3) * {draw.weight(shape[-1])}",
        f"({x} - {x}.mean(-1, keepdim=True)) / torch.sqrt({x}.var(-1, keepdim=True, unbiased=False) + 1e-2)",
        f"F.normalize({x}, dim=-1, eps=1e-2)",
    )
    return str(draw.one(*forms))


def norm_of_vectors(draw: Draw, x: str, shape: Shape) -> str:
    return f"{draw.layer(f'BatchNorm1d({shape[0]})')}({x})"


_ACTIVATIONS = """relu relu6 hardtanh leaky_relu hardswish hardsigmoid elu selu celu gelu silu logsigmoid softplus mish
tanhshrink softsign softshrink"""


def activation(draw: Draw, x: str, shape: Shape) -> str:
    named = draw.rng.choice(_ACTIVATIONS.split())
    forms = (
        f"F.{named}({x})",
        f"F.{named}({x})",
        f"F.gelu({x}, approximate='tanh')",
        f"F.threshold({x}, 0.1, 0.1)",
        f"torch.where({x} > 0, {x}, 0.2 * {x})",
        f"{x} * torch.sigmoid(1.7 * {x})",
        f"torch.clamp({x}, -1.5, 1.2)",
        f"torch.maximum({x}, 0.1 * {x})",
        f"torch.sin({x}) + torch.exp(-{x}.abs())",
        f"({x}.square() + 1).log() - torch.erf({x})",
        f"{x}.masked_fill({x} > 1, 1.0)",
        f"torch.lerp({x}, {x}.tanh(), 0.3)",
        f"torch.softmax({x}, {draw.rng.randint(1, len(shape))})",
        f"{x}.log_softmax({draw.rng.randint(1, len(shape))})",
        f"F.dropout({x}, 0.5, self.training)",
        f"{draw.layer(f'PReLU({shape[0]})')}({x})",
    )
    return str(draw.one(*forms))


def gate(draw: Draw, x: str, shape: Shape) -> str:
    """Squeeze and excitation, or the halves of a gated linear unit."""
    if draw.chance(0.5) or len(shape) == 1:
        return f"F.glu({x}, {draw.rng.randint(1, len(shape))})"
    axes, ones = tuple(range(2, len(shape) + 1)), (1,) * (len(shape) - 1)
    inner = draw.layer(f"Linear({shape[0]}, {shape[0]})")
    return f"{x} * torch.sigmoid({inner}({x}.mean({axes}))).view(-1, {shape[0]}, {', '.join(map(str, ones))})"


def attention_by_products(draw: Draw, x: str, shape: Shape) -> str:
    time, width = shape
    query, key, value = (draw.layer(f"Linear({width}, {width})") for _ in range(3))
    scores = f"{query}({x}) @ {key}({x}).transpose(1, 2) / {width**0.5:.3f}"
    if draw.chance(0.5):
        scores = f"({scores}).masked_fill(torch.ones({time}, {time}, dtype=torch.bool).triu(1), float('-inf'))"
    return f"torch.softmax({scores}, -1) @ {value}({x})"


def attention_fused(draw: Draw, x: str, shape: Shape) -> str:
    time, width = shape
    heads = divisor(draw, width)
    query, key, value = (draw.layer(f"Linear({width}, {width})") for _ in range(3))
    parts = [f"{part}({x}).unflatten(2, ({heads}, -1)).transpose(1, 2)" for part in (query, key, value)]
    mask = draw.one("", ", is_causal=True", ", scale=0.4", f", attn_mask={draw.weight(time, time)}")
    return f"F.scaled_dot_product_attention({', '.join(parts)}{mask}).transpose(1, 2).flatten(2)"


def attention_layer(draw: Draw, x: str, shape: Shape) -> str:
    heads = divisor(draw, shape[1])
    if draw.chance(0.5):
        inner = draw.rng.choice((8, 13))
        settings = (
            f"dropout=0.1, batch_first=True, norm_first={draw.chance(0.5)}, activation={draw.one('relu', 'gelu')!r}"
        )
        return f"{draw.layer(f'TransformerEncoderLayer({shape[1]}, {heads}, {inner}, {settings})')}({x})"
    layer = draw.layer(f"MultiheadAttention({shape[1]}, {heads}, batch_first=True)")
    return f"{layer}({x}, {x}, {x}, need_weights={draw.chance(0.5)})[0]"


def cross_attention(draw: Draw, x: str, shape: Shape) -> str:
    others = [name for name, other in draw.values.items() if len(other) == 2 and other[1] == shape[1]]
    y, heads = draw.rng.choice(others), divisor(draw, shape[1])
    layer = draw.layer(f"MultiheadAttention({shape[1]}, {heads}, batch_first=True)")
    return f"{layer}({x}, {y}, {y})[0]"
