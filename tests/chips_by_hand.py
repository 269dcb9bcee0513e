"""Chips and workloads made in the tests, without YAML and without torch."""

from typing import Any

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixOp, TensorShape, Workload

SAME = Access(kind="same")
ALL = Access(kind="all")
PREVIOUS = Access(kind="previous")

#: (rows, columns, windows) of every matrix of ResNet-18 for 224 x 224 images (He et al., CVPR 2016, table 1).
RESNET18: tuple[tuple[str, int, int, int], ...] = (
    ("conv1", 7 * 7 * 3, 64, 112 * 112),
    *((f"layer1.{i}", 9 * 64, 64, 56 * 56) for i in range(4)),
    ("layer2.0", 9 * 64, 128, 28 * 28),
    *((f"layer2.{i}", 9 * 128, 128, 28 * 28) for i in range(1, 4)),
    ("layer2.down", 64, 128, 28 * 28),
    ("layer3.0", 9 * 128, 256, 14 * 14),
    *((f"layer3.{i}", 9 * 256, 256, 14 * 14) for i in range(1, 4)),
    ("layer3.down", 128, 256, 14 * 14),
    ("layer4.0", 9 * 256, 512, 7 * 7),
    *((f"layer4.{i}", 9 * 512, 512, 7 * 7) for i in range(1, 4)),
    ("layer4.down", 256, 512, 7 * 7),
    ("fc", 512, 1000, 1),
)


def tile_by_hand(rows: int = 256, columns: int = 256, count: Any = "auto", **changes: Any) -> dict[str, Any]:
    """A tile section; nested keys as ``mvm={...}``."""
    tile: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "count": count,
        "device": {"model": "pcm", "g_max": "25 uS"},
        "dac": {"bits": 8, "input_mode": "pulse_width"},
        "adc": {"bits": 8, "out_bound": 10},
        "mvm": {
            "time": "133 ns",
            "initiation_interval": "133 ns",
            "energy": "13.4 nJ",
            "split": {"adc": 0.65, "array": 0.2, "dac": 0.15},
        },
    }
    for key, value in changes.items():
        tile[key] = {**tile[key], **value} if isinstance(value, dict) and key in tile else value
    return tile


def chip_by_hand(tile: dict[str, Any] | None = None, **sections: Any) -> ChipSpec:
    """A chip; ``tiles``, ``network``, ``digital_units``, ``local_digital`` replace those keys of the defaults."""
    price = {"startup": "10 ns", "rate": "64/tick", "energy": "1 pJ"}
    classes = ("elementwise", "reduction", "pooling", "activation_product", "softmax", "transcendental", "movement")
    chip: dict[str, Any] = {
        "schema_version": 1,
        "name": "by-hand",
        "clock": {"tick": "1 ns"},
        "nonidealities": {
            "mvm": {
                "range_clip": True,
                "sigma_in": 0,
                "sigma_out": 0.04,
                "sigma_w": 0.0175,
                "read_noise": "pcm",
                "ir_drop": 1.0,
                "r_wire": "0.35 ohm",
                "g_ir": "5 uS",
            },
            "drift_compensation": "tile",
        },
        "local_digital": {"ops": ("scale", "bias", "accumulate", "relu"), "rate": "512/tick", "energy": "0.1 pJ"},
        "digital_units": {"count": 8, "cost_classes": dict.fromkeys(classes, price)},
        "network": {
            "topology": "mesh",
            "link_bits_per_tick": 512,
            "hop_time": "10 ns",
            "energy_per_bit": "0.01 pJ",
            "activation_bits": 8,
        },
        "buffers": {"input": "16 KiB", "line": "64 KiB"},
        "evaluation": {"times": ("1 s",)},
    }
    if "tiles" not in sections:
        chip["tile"] = tile or tile_by_hand()
    for key, value in sections.items():
        chip[key] = {**chip[key], **value} if isinstance(value, dict) and key in chip else value
    return ChipSpec.model_validate(chip)


def conv_access(size: int, kernel: int, stride: int = 1, padding: int | None = None) -> Access:
    """A square convolution or pool on a square image."""
    padding = kernel // 2 if padding is None else padding
    output = (size + 2 * padding - kernel) // stride + 1
    return Access(
        kind="sliding",
        input_size=(size, size),
        output_size=(output, output),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(1, 1),
    )


class WorkloadByHand:
    """Builds a workload op by op; every method returns the name of its output tensor."""

    def __init__(self, windows: int, width: int, name: str = "net") -> None:
        self.name = name
        self.tensors = [TensorShape(name="x", windows=windows, width=width)]
        self.matrices: list[Matrix] = []
        self.ops: list[MatrixOp | DigitalOp] = []

    def shape(self, tensor: str) -> TensorShape:
        return next(shape for shape in self.tensors if shape.name == tensor)

    def matrix(
        self, name: str, source: str, columns: int, access: Access = SAME, kernel: int = 1, groups: int = 1, **op: Any
    ) -> str:
        shape = self.shape(source)
        windows = shape.windows if access.kind in ("same", "previous") else 1
        if access.kind == "sliding":
            windows = access.output_size[0] * access.output_size[1]
        if "matrix" not in op:
            rows = shape.width // groups * kernel
            self.matrices.append(
                Matrix(name=name, parameter=f"{name}.weight", rows=rows, columns=columns, groups=groups, kernel=kernel)
            )
        fields = {"matrix": name, "kind": "conv2d" if access.kind == "sliding" else "linear", "analog": True, **op}
        self.ops.append(
            MatrixOp(
                name=name, windows=windows, input=source, output=f"{name}.out", access=access, reason="test", **fields
            )
        )
        return self.tensor(f"{name}.out", windows, groups * columns)

    def digital(
        self,
        name: str,
        sources: tuple[str, ...],
        access: Access = SAME,
        op: str = "aten.add.Tensor",
        cost_class: str = "elementwise",
        shape: tuple[int, int] | None = None,
    ) -> str:
        first = self.shape(sources[0])
        windows, width = shape or (first.windows, first.width)
        self.ops.append(
            DigitalOp(
                name=name,
                op=op,
                cost_class=cost_class,
                inputs=sources,
                accesses=(access,) * len(sources),
                output=f"{name}.out",
                work=0 if cost_class == "free" else windows * width,
            )
        )
        return self.tensor(f"{name}.out", windows, width)

    def lstm(self, name: str, source: str, hidden: int, analog: bool = True, **recurrent: Any) -> str:
        """A recurrent layer: ``ih`` on all steps, ``hh`` on the state of the step before, a cell for the next."""
        state, steps = f"{name}.h", self.shape(source).windows
        gates = self.matrix(f"{name}.ih", source, 4 * hidden, analog=analog)
        self.tensor(state, steps, hidden)
        back = self.matrix(f"{name}.hh", state, 4 * hidden, PREVIOUS, analog=analog, **recurrent)
        self.ops.append(
            DigitalOp(
                name=f"{name}.cell",
                op="lstm_cell",
                cost_class="transcendental",
                inputs=(gates, back),
                accesses=(SAME, SAME),
                output=state,
                work=steps * hidden,
            )
        )
        return state

    def relu(self, name: str, source: str) -> str:
        return self.digital(name, (source,), op="aten.relu.default")

    def build(self, *outputs: str) -> Workload:
        return Workload(
            name=self.name,
            inputs=("x",),
            outputs=outputs,
            tensors=tuple(self.tensors),
            matrices=tuple(self.matrices),
            ops=tuple(self.ops),
        )

    def tensor(self, name: str, windows: int, width: int) -> str:
        """Made once: also ahead of the operation that makes it, for those in front which read the step before."""
        if name not in {tensor.name for tensor in self.tensors}:
            self.tensors.append(TensorShape(name=name, windows=windows, width=width))
        return name


def chain(layers: int, size: int) -> Workload:
    """``layers`` square matrices one behind the other, one window."""
    work = WorkloadByHand(1, size)
    tensor = "x"
    for layer in range(layers):
        tensor = work.matrix(f"layer{layer}", tensor, size)
    return work.build(tensor)


def resnet_shapes() -> Workload:
    """The matrices of ResNet-18 in a row, with their windows: enough to map, no network to run."""
    matrices, ops, tensors = [], [], [TensorShape(name="x", windows=224 * 224, width=3)]
    for name, rows, columns, windows in RESNET18:
        kernel = 1 if name == "fc" or name.endswith("down") else 49 if name == "conv1" else 9
        matrices.append(Matrix(name=name, parameter=f"{name}.weight", rows=rows, columns=columns, kernel=kernel))
        ops.append(
            MatrixOp(
                name=name,
                matrix=name,
                kind="conv2d",
                windows=windows,
                input=tensors[-1].name,
                output=f"{name}.out",
                access=ALL,
                analog=True,
                reason="test",
            )
        )
        tensors.append(TensorShape(name=f"{name}.out", windows=windows, width=columns))
    return Workload(
        name="resnet18",
        inputs=("x",),
        outputs=("fc.out",),
        tensors=tuple(tensors),
        matrices=tuple(matrices),
        ops=tuple(ops),
    )


def residual_network(
    sizes: tuple[tuple[int, int], ...] = ((16, 8), (8, 16)), image: int = 8, channels: int = 3, classes: int = 10
) -> Workload:
    """A small residual CNN: a stem, a block a stage of (image size, channels), global pool, flatten, head."""
    work = WorkloadByHand(image * image, channels, name="residual")
    x = work.relu("stem.relu", work.matrix("stem", "x", sizes[0][1], conv_access(image, 3), kernel=9))
    size = image
    for stage, (wanted, width) in enumerate(sizes):
        stride = max(1, size // wanted)
        first = work.matrix(f"s{stage}.first", x, width, conv_access(size, 3, stride), kernel=9)
        out = conv_access(size, 3, stride).output_size[0]
        second = work.matrix(
            f"s{stage}.second", work.relu(f"s{stage}.relu1", first), width, conv_access(out, 3), kernel=9
        )
        if stride > 1 or work.shape(x).width != width:
            x = work.matrix(f"s{stage}.down", x, width, conv_access(size, 1, stride, 0))
        x = work.digital(f"s{stage}.relu2", (work.digital(f"s{stage}.add", (second, x)),), op="aten.relu.default")
        size = out
    width = work.shape(x).width
    pooled = work.digital("pool", (x,), ALL, "aten.mean.dim", "reduction", (1, width))
    flat = work.digital("flatten", (pooled,), ALL, "aten.flatten.using_ints", "free", (1, width))
    return work.build(work.matrix("head", flat, classes))


def resnet18() -> Workload:
    """ResNet-18 for 224 x 224 images, with its accesses."""
    work = WorkloadByHand(224 * 224, 3, name="resnet18")
    x = work.relu("relu", work.matrix("conv1", "x", 64, conv_access(224, 7, 2), kernel=49))
    x = work.digital("maxpool", (x,), conv_access(112, 3, 2), "aten.max_pool2d.default", "pooling", (56 * 56, 64))
    size = 56
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            name, out = f"layer{stage + 1}.{block}", size // stride
            y = work.relu(f"{name}.relu1", work.matrix(f"{name}.conv1", x, width, conv_access(size, 3, stride), 9))
            y = work.matrix(f"{name}.conv2", y, width, conv_access(out, 3), 9)
            if stride > 1:
                x = work.matrix(f"{name}.down", x, width, conv_access(size, 1, 2, 0))
            x = work.digital(f"{name}.relu2", (work.digital(f"{name}.add", (y, x)),), op="aten.relu.default")
            size = out
    x = work.digital("avgpool", (x,), ALL, "aten.mean.dim", "reduction", (1, 512))
    return work.build(work.matrix("fc", x, 1000))
