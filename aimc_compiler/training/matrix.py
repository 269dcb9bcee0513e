"""A weight matrix in training: cut as the compiler cuts it, disturbed as the chip disturbs it.

Each row block is the MVM of ``aimc_compiler.analog``, the same functions that a compiled network runs on, with the
weights of a mini-batch in place of a programmed chip's (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods). Weights
stay in the network's own units: ``w = W / s`` is made in every forward pass, with ``s`` the scale of the last remap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from aimc_compiler.analog import (
    BlockProduct,
    Contraction,
    Draw,
    MvmSettings,
    RowBlock,
    Stored,
    block_products,
    multiply_block,
    require_built,
    row_blocks,
)
from aimc_compiler.analog.normalisation import column_scales, rows_of
from aimc_compiler.chip import ChipSpec
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.mapping.map import cut_matrix
from aimc_compiler.rng import Key, stream_key
from aimc_compiler.training.attached import Attached
from aimc_compiler.training.batches import Batches, fresh_seed, made_again, over_processes
from aimc_compiler.training.disturbance import Disturbance, disturbed
from aimc_compiler.training.fused import Form, FusedBlock, Passes, fuses, multiplied, side_type
from aimc_compiler.training.inputs import require_inputs
from aimc_compiler.training.ranges import LEAST_RANGE, RangeRule, scaled
from aimc_compiler.training.recipe import Recipe
from aimc_compiler.training.settings import training_settings
from aimc_compiler.training.weights import WeightNoise
from aimc_compiler.workload.ir import Matrix

#: Rules of ``Recipe.clip`` by which the weights themselves are held to bounds.
HELD = ("column", "k-sigma")


class TrainedMatrix(nn.Module):
    """One matrix on tiles, in training. The weight is the caller's: ``forward(x, weight, bias)``.

    input_range: (groups, row blocks), a parameter; column_gain: (row blocks, groups, columns), a parameter, or None;
    column_bound: of the same shape, what weights are clipped to where the recipe learns that, or None; column_scale:
    (row blocks, groups, columns), s; seen: mini-batches so far.

    op: of the operation; name: of the matrix, as the compiler has it, which is that of its first operation; parameter:
    the path of its weight; shape: (groups, columns, rows).
    """

    def __init__(
        self,
        op: str,
        name: str,
        parameter: str,
        shape: tuple[int, int, int],
        contraction: Contraction,
        chip: ChipSpec,
        recipe: Recipe,
        batches: Batches,
        tile_type: str | None = None,
    ) -> None:
        super().__init__()
        groups, columns, rows = shape
        self.op, self.name, self.parameter = op, name, parameter
        self.recipe, self.batches = recipe, batches
        self.tile_type = tile_type or next(iter(chip.tile_types))
        self.contraction = contraction
        matrix = Matrix(
            name=name, parameter=parameter, rows=rows, columns=columns, groups=groups, kernel=contraction.places
        )
        self.pieces = tuple(cut_matrix(matrix, chip, self.tile_type, 0))
        self.blocks = row_blocks(self.pieces, groups, columns, rows)
        self.chip = chip
        tile = chip.tile_types[self.tile_type]
        require_built(tile, chip.nonidealities, self.tile_type)
        self.settings = training_settings(MvmSettings.of(tile, chip.nonidealities), recipe)
        self.quiet = replace(self.settings, sigma_in=0.0, sigma_w=0.0, sigma_out=0.0)
        self.noise = WeightNoise.of(recipe, tile, chip.nonidealities, chip.evaluation.times_s)
        self.normalised = tile.normalisation == "column"
        self.shape = shape
        self._fusible = self.normalised and recipe.clip != "learned" and not recipe.column_gain and fuses(self.settings)
        each = torch.ones(len(self.blocks), groups, columns)
        self.input_range = nn.Parameter(torch.ones(groups, len(self.blocks)), requires_grad=recipe.ranges == "learned")
        self.column_gain = nn.Parameter(each.clone()) if recipe.column_gain else None
        self.column_bound = nn.Parameter(each.clone()) if recipe.clip == "learned" else None
        self.register_buffer("column_scale", each.clone())
        self.column_scale: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.seen: Tensor
        self._batch, self._due, self._norms = -1, False, dict[int, float]()
        self._products: tuple[tuple[BlockProduct, ...] | FusedBlock, ...] = ()
        self._variances: list[Tensor] = []
        self._chip: Attached | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """What changes in every mini-batch is private, and set without torch's search for parameters and modules."""
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The operation's output: of the mini-batch in training mode, without noise in evaluation mode, or of the chip
        that is attached.

        x: (batch, ..., features), or (batch, channels, *spatial), or one entry without batch; weight: (groups,
        columns, rows); bias: (groups * columns,) or None.
        """
        require_inputs(x, self.op, self.contraction, self.shape)
        single = x.dim() == self.contraction.sample_axes
        batch = x[None] if single else x
        if self._chip is None:
            y = self._products_of(batch, weight, bias)
        else:
            y = self._biased(self._chip.forward(batch), bias)
        return y[0] if single else y

    def _biased(self, y: Tensor, bias: Tensor | None) -> Tensor:
        return y if bias is None else y + bias.reshape(-1, *(1,) * len(self.contraction.kernel))

    @contextmanager
    def held(self, weight: Tensor) -> Iterator[None]:
        """Within it the weights of a mini-batch are made once, for the steps of a loop."""
        if self._chip is None:
            self._begin(weight)
            self._products = self._made(weight)
        try:
            yield
        finally:
            self._products = ()

    def fused(self) -> tuple[FusedBlock, ...]:
        """The row blocks of a loop, within ``held``; none where its steps must go one by one."""
        return tuple(block for block in self._products if isinstance(block, FusedBlock))

    def passes(self) -> tuple[Passes, ...]:
        """What each row block does with the inputs of a whole loop."""
        call = self._call()
        return tuple(self._passes(block, call) for block in self.blocks)

    def drive_ranges(self) -> Tensor:
        """(groups, row blocks), positive, with gradient."""
        return self.input_range.clamp(min=LEAST_RANGE)

    def watch(self, x: Tensor) -> None:
        """See the inputs of calls in which a range follows. x: (calls, batch, features)."""
        if not self._watches:
            return
        if not self._variances:
            self._watch(x[0])
            x = x[1:]
        if not len(x):
            return
        parts = [x[..., b.first_row : b.first_row + b.rows].var(dim=(1, 2), correction=0) for b in self.blocks]
        self._variances += [each[None].clone() for each in torch.stack(parts, 1).unbind()]

    def ranges(self) -> Tensor:
        """(groups, row blocks), positive."""
        return self.drive_ranges().detach()

    def progress(self) -> dict[str, Any]:
        """What outlives a mini-batch beside the state dict: for a checkpoint."""
        return {"variances": list(self._variances), "norms": [self._norms[place] for place in sorted(self._norms)]}

    def go_on(self, progress: dict[str, Any]) -> None:
        """Continue from ``progress``, once the state dict is loaded."""
        self._variances = [found.to(self.column_scale.device) for found in progress["variances"]]
        self._norms = dict(enumerate(progress["norms"]))

    def attach(self, chip: "Attached | None") -> None:
        """From now on run on this chip; None: in training or evaluation as the mode says."""
        self._chip = chip

    def _products_of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum of all row blocks and the bias, in the shape of the operation's output."""
        contraction, groups = self.contraction, self.shape[0]
        if not self._products:
            self._begin(weight)
        if self._watches:
            self._watch(x)
        made = self._products or self._made(weight)
        call, total = self._call(), None
        outer = contraction.output_shape(tuple(x.shape), groups * self.shape[1])
        if len(made) == 1 and isinstance(made[0], FusedBlock):
            form = Form(inner=contraction.input_shape(tuple(x.shape), groups), outer=outer)
            how, r = self._passes(self.blocks[0], call), self.input_range.view(-1)
            return multiplied(x, r, made[0], self.column_scale[0], how, bias, form)
        ranges = self.drive_ranges()
        for block, products in zip(self.blocks, made, strict=True):
            inputs = contraction.inputs_of(x, groups, block.first_row, block.rows)
            r = ranges[:, block.index]
            if isinstance(products, FusedBlock):
                part = multiplied(inputs, r, products, self.column_scale[block.index], self._passes(block, call))
            else:
                part = self._run(inputs, r, block, products, call)
            total = part if total is None else total + part
        assert total is not None
        return self._biased(total.reshape(outer), bias)

    def _run(self, inputs: Tensor, r: Tensor, block: RowBlock, products: tuple[BlockProduct, ...], call: int) -> Tensor:
        """Digital outputs of a row block, operation by operation."""
        contraction = self.contraction
        if self.normalised:
            rule = self._rule
            inputs = scaled(inputs, contraction.along_inputs(r), rule.decay, rule.inside, learns=rule.learns)

        def key_of(piece: Piece, purpose: str) -> Key:
            return stream_key(call, "training", piece.name, purpose)

        draw = Draw(keys=(), columns=())
        u, _ = multiply_block(inputs, block, products, contraction, self._settings, key_of, draw)
        return u * contraction.along_columns(self._scale(block) * r.detach().unsqueeze(-1))

    def _passes(self, block: RowBlock, call: int) -> Passes:
        settings = self.settings
        return Passes(
            contraction=self.contraction,
            step=settings.dac_step,
            rule=self._rule,
            read=settings.sigma_w**2,
            output=settings.sigma_out**2,
            out_step=settings.adc_step,
            bound=settings.out_bound,
            key=stream_key(call, "training", self.name, block.index),
            scratch=self.batches.scratch,
        )

    def _call(self) -> int:
        """Names the noise of this call: drawn, so that checkpointing, which restores generators, meets the same."""
        return fresh_seed() if self.training else 0

    @property
    def _settings(self) -> MvmSettings:
        return self.settings if self.training else self.quiet

    @property
    def _follows(self) -> bool:
        """Whether the range follows the inputs still; ``_begin`` has counted this mini-batch already."""
        return self.normalised and int(self.seen) <= self.recipe.range_batches

    @property
    def _watches(self) -> bool:
        """Whether the range is to follow the inputs of a call."""
        return self.training and self._follows and not made_again()

    @property
    def _rule(self) -> RangeRule:
        learns = self.training and self.recipe.ranges == "learned" and not self._follows
        return RangeRule(decay=self.recipe.range_decay, inside=self.recipe.range_inside, learns=learns)

    def _bound(self, block: RowBlock) -> Tensor:
        """(groups, columns): the weight that is 1 on the tile."""
        if self.column_bound is None:
            return self.column_scale[block.index]
        return self.column_bound[block.index].clamp(min=LEAST_RANGE)

    def _scale(self, block: RowBlock) -> Tensor:
        """(groups, columns): what an output of the column counts, with its learned gain."""
        bound = self._bound(block)
        return bound if self.column_gain is None else bound * self.column_gain[block.index]

    def _made(self, weight: Tensor) -> tuple[tuple[BlockProduct, ...] | FusedBlock, ...]:
        """The products of all row blocks with the weights of this mini-batch."""
        if self._fuses(weight):
            if self._due:
                self.column_scale = torch.empty_like(self.column_scale)  # the former one may be wanted backward
            return tuple(self._fused_block(block, rows_of(weight, block)) for block in self.blocks)
        return tuple(self._plain_block(block, rows_of(weight, block)) for block in self.blocks)

    def _plain_block(self, block: RowBlock, weight: Tensor) -> tuple[BlockProduct, ...]:
        return block_products(block, Stored(slices=self._stored(block, weight)[None]), self.contraction, self._settings)

    def _stored(self, block: RowBlock, w: Tensor) -> Tensor:
        """What the tile's cells hold in this mini-batch: normalised, disturbed."""
        if self.normalised:
            w = w / self._bound(block).unsqueeze(-1)
            w = w if self.column_bound is None else w.clamp(-1, 1)
        if self.training:
            w = self.noise.disturb(w, int(self.seen) - 1, self.batches.seed, f"{self.name}/{block.index}")
        return w

    def _fuses(self, weight: Tensor) -> bool:
        """Whether row blocks are computed in few passes in this mini-batch."""
        return (
            self._fusible
            and self.training
            and weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )

    def _fused_block(self, block: RowBlock, weight: Tensor) -> FusedBlock:
        scales, reads = self.column_scale[block.index], self.settings.sigma_w > 0
        if self.noise.in_few_passes:
            how = Disturbance.of(self.noise, self.batches, f"{self.name}/{block.index}", int(self.seen) - 1, self._due)
            noisy, magnitude = disturbed(weight, scales, how, magnitude=reads)
        else:
            noisy = self._stored(block, weight) * scales.unsqueeze(-1)
            magnitude = (noisy.detach().abs() if reads else scales.new_empty(0)).to(side_type())
        kernels = [self.contraction.kernel_of(w, block.first_row) if w.numel() else w for w in (noisy, magnitude)]
        return FusedBlock(main=kernels[0], magnitude=kernels[1])

    def _begin(self, weight: Tensor) -> None:
        """Once a mini-batch, before anything else: scale the weights."""
        if not self.training:
            self._remap(weight)
            return
        before = int(self.seen)
        if self._batch == self.batches.number and before:
            return
        self._batch = self.batches.number
        if len(self._variances) > 1:
            self._follow(torch.stack(self._variances).mean(0).sqrt(), before - 1)
        self._variances = []
        self._due = before % self.recipe.remap_every == 0
        scales_itself = self.noise.in_few_passes and self._fuses(weight)
        if self._due and not (scales_itself and self.chip.nonidealities.digital.column_scale_bits == "off"):
            self._remap(weight)
            self._due = False
        self.seen.add_(1)

    def _watch(self, x: Tensor) -> None:
        """Let the range follow a mini-batch's inputs: of the first call at once, of several when the next begins."""
        found = self._deviations(x)
        if not self._variances:
            self._follow(found, int(self.seen) - 1)
        self._variances.append(found.square())

    def _deviations(self, x: Tensor) -> Tensor:
        """(groups, row blocks): the standard deviation of the inputs of each row block."""
        if not x.numel():
            return torch.zeros_like(self.input_range)
        kept = []
        for block in self.blocks:
            inputs = self.contraction.inputs_of(x.detach(), self.shape[0], block.first_row, block.rows)
            dims = [0, 1, 2] if self.contraction.kind == "linear" else [0, *range(2, inputs.dim())]
            kept.append(inputs.std(dim=dims, correction=0).reshape(-1).expand(self.shape[0]))
        return torch.stack(kept, dim=1)

    @torch.no_grad()
    def _follow(self, deviations: Tensor, count: int) -> None:
        """``r <- (r k + sigmas std(x)) / (k + 1)``, k = count; inputs that are all 0 leave it."""
        width = self.recipe.range_sigmas * over_processes(deviations)
        follow = (self.input_range * count + width) / (count + 1)
        self.input_range.copy_(torch.where(width > 0, follow, self.input_range))

    @torch.no_grad()
    def hold(self, weight: Tensor) -> bool:
        """Hold weights to their bounds, in place, where an update has been since the last call; says whether.

        weight: as of ``forward``, detached. The norm of a block tells of an update: optimisers need not count them.
        """
        held = False
        for block in self.blocks if self.normalised else ():
            part, kept = rows_of(weight, block), self._norms.get(block.index)
            norm = float(torch.linalg.vector_norm(part))
            if kept not in (None, norm):
                bound: Any = self.recipe.clip_sigmas * norm / sqrt(part.numel())
                if self.recipe.clip == "column":
                    bound = self.column_scale[block.index].unsqueeze(-1)
                norm, held = float(torch.linalg.vector_norm(part.clamp_(-bound, bound))), True
            self._norms[block.index] = norm
        return held

    @torch.no_grad()
    def _remap(self, weight: Tensor) -> None:
        """Scale each column anew, so that its largest weight is 1."""
        if not self.normalised:
            return
        bits = self.chip.nonidealities.digital.column_scale_bits
        self.column_scale = torch.stack([column_scales(weight.detach(), block, bits) for block in self.blocks])
        if self.column_bound is not None and not int(self.seen):
            self.column_bound.copy_(self.column_scale)

    def mapped(self, weight: Tensor) -> Tensor:
        """What the compiler gets: (groups, columns, rows), clipped to learned bounds, learned gains multiplied in."""
        parts = []
        for block in self.blocks:
            part = rows_of(weight.detach(), block)
            if self.column_bound is not None:
                bound = self._bound(block).detach().unsqueeze(-1)
                part = torch.maximum(torch.minimum(part, bound), -bound)
            parts.append(
                part if self.column_gain is None else part * self.column_gain[block.index].detach().unsqueeze(-1)
            )
        return torch.cat(parts, dim=2)

    def extra_repr(self) -> str:
        return f"{self.name}, {'x'.join(map(str, self.shape))}, pieces={len(self.pieces)}"
