"""A weight matrix in training: cut as the compiler cuts it, disturbed as the chip disturbs it.

Each row block is the MVM of ``aimc_compiler.analog``, the same functions that a compiled network runs on, with the
weights of a mini-batch in place of a programmed chip's (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods). Weights
stay in the network's own units: ``w = W / s`` is made in every forward pass, with ``s`` the scale of the last remap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from aimc_compiler.analog.normalisation import column_scales, copied, rows_of
from aimc_compiler.analog.straight_through import straight_through
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import TrainingError
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.mapping.map import cut_matrix
from aimc_compiler.rng import Key, stream_key
from aimc_compiler.training.attached import Attached
from aimc_compiler.training.batches import OUTSTANDING, Batches, Met, fresh_seed, made_again
from aimc_compiler.training.disturbance import Disturbance, disturbed
from aimc_compiler.training.following import Following
from aimc_compiler.training.fused import Form, FusedBlock, Passes, fuses, multiplied, side_type
from aimc_compiler.training.holding import Holding
from aimc_compiler.training.inputs import require_inputs
from aimc_compiler.training.ranges import LEAST_RANGE, RangeRule, scaled
from aimc_compiler.training.recipe import Recipe
from aimc_compiler.training.settings import training_settings
from aimc_compiler.training.weights import WeightNoise
from aimc_compiler.workload.ir import Matrix


class TrainedMatrix(nn.Module):
    """One matrix on tiles, in training. The weight is the caller's: ``forward(x, weight, bias)``.

    input_range: (groups, row blocks), a parameter; column_gain: (row blocks, groups, columns), a parameter, or None;
    column_bound: of the same shape, what weights are clipped to where the recipe learns that, or None; column_scale:
    (row blocks, groups, columns), s; seen: mini-batches so far.

    op: of the operation; name: of the matrix, as the compiler has it, which is that of its first operation; parameter:
    the path of its weight; shape: (groups, columns, rows); holds: whether it holds its weight to bounds.
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
        self._now, self._met = Met(scales=self.column_scale), dict[int, Met]()
        self.holding, self.holds = Holding(recipe, self.blocks), True
        self._following = Following(recipe.range_sigmas, self.blocks, contraction, groups)
        self._products: tuple[tuple[BlockProduct, ...] | FusedBlock, ...] = ()
        self._loop = self._version = 0
        self._chip: Attached | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy is on no chip."""
        return vars(self) | {"_chip": None}

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
        require_inputs(x, weight.dtype, self.op, self.contraction, self.shape)
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
            self._loop = self._call()
            self._begin(weight, self._loop)
            self._products = self._made(weight)
        try:
            yield
        finally:
            self._products = ()

    def fused(self) -> tuple[FusedBlock, ...]:
        """The row blocks of a loop, within ``held``; none where its steps must go one by one."""
        return tuple(block for block in self._products if isinstance(block, FusedBlock))

    def passes(self) -> tuple[Passes, ...]:
        """What each row block does with the inputs of a whole loop, within ``held``."""
        return tuple(self._passes(block, self._loop) for block in self.blocks)

    def scales(self) -> Tensor:
        """(row blocks, groups, columns): s of this mini-batch."""
        return self._now.scales

    def drive_ranges(self) -> Tensor:
        """(groups, row blocks), positive, with gradient: of this mini-batch."""
        return self._range.clamp(min=LEAST_RANGE)

    def watch(self, x: Tensor) -> None:
        """See the inputs of a call: for some mini-batches ranges follow them."""
        if self._watches and self._following.see(self.input_range, x, self._now.before):
            self._now.ranges = copied(self.input_range)
            self.batches.at_end(partial(self._following.end, self.input_range, self._now.before))

    def watch_further(self, x: Tensor) -> None:
        """See the inputs of the other calls of a loop. x: (calls, batch, features)."""
        if self._watches:
            self._following.see_further(x)

    def ranges(self) -> Tensor:
        """(groups, row blocks), positive."""
        return self.input_range.detach().clamp(min=LEAST_RANGE)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """What belongs to the state before goes, and mini-batches are counted on from what matrices have seen."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}seen" in state_dict:
            self._met, self.batches.number = {}, 0

    def attach(self, chip: "Attached | None") -> None:
        """From now on run on this chip; None: in training or evaluation as the mode says."""
        self._chip = chip

    def _products_of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum of all row blocks and the bias, in the shape of the operation's output."""
        contraction, groups = self.contraction, self.shape[0]
        call, total = self._call(), None
        if not self._products:
            self._begin(weight, call)
        self.watch(x)
        made = self._products or self._made(weight)
        outer = contraction.output_shape(tuple(x.shape), groups * self.shape[1])
        if len(made) == 1 and isinstance(made[0], FusedBlock):
            form = Form(inner=contraction.input_shape(tuple(x.shape), groups), outer=outer)
            how, r = self._passes(self.blocks[0], call), self._range.view(-1)
            return multiplied(x, r, made[0], self._now.scales[0], how, bias, form)
        ranges = self.drive_ranges()
        for block, products in zip(self.blocks, made, strict=True):
            inputs = contraction.inputs_of(x, groups, block.first_row, block.rows)
            r = ranges[:, block.index]
            if isinstance(products, FusedBlock):
                part = multiplied(inputs, r, products, self._now.scales[block.index], self._passes(block, call))
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
    def _range(self) -> Tensor:
        """(groups, row blocks), with gradient: of this mini-batch, whose backward pass may come behind the next one."""
        followed = self._now.ranges
        return self.input_range if followed is None else straight_through(followed, self.input_range)

    @property
    def _follows(self) -> bool:
        """Whether the range follows the inputs still."""
        return self.normalised and self._now.before < self.recipe.range_batches

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
        if self.column_bound is None or not self.training:
            return self._now.scales[block.index]
        return self.column_bound[block.index].clamp(min=LEAST_RANGE)

    def _clipped(self, weight: Tensor) -> Tensor:
        """Weights within learned bounds, (groups, columns, rows)."""
        if self.column_bound is None:
            return weight
        bounds = self.column_bound.clamp(min=LEAST_RANGE).unsqueeze(-1)
        parts = [(rows_of(weight, block), bounds[block.index]) for block in self.blocks]
        return torch.cat([torch.maximum(torch.minimum(part, bound), -bound) for part, bound in parts], dim=2)

    def _scale(self, block: RowBlock) -> Tensor:
        """(groups, columns): what an output of the column counts, with its learned gain."""
        bound = self._bound(block)
        return bound if self.column_gain is None else bound * self.column_gain[block.index]

    def _made(self, weight: Tensor) -> tuple[tuple[BlockProduct, ...] | FusedBlock, ...]:
        """The products of all row blocks with the weights of this mini-batch."""
        if self._fuses(weight):
            made = tuple(self._fused_block(block, rows_of(weight, block)) for block in self.blocks)
            self._now.due = False
            return made
        weight = weight if self.training else self._clipped(weight)  # as it is mapped
        return tuple(self._plain_block(block, rows_of(weight, block)) for block in self.blocks)

    def _plain_block(self, block: RowBlock, weight: Tensor) -> tuple[BlockProduct, ...]:
        return block_products(block, Stored(slices=self._stored(block, weight)[None]), self.contraction, self._settings)

    def _stored(self, block: RowBlock, w: Tensor) -> Tensor:
        """What the tile's cells hold in this mini-batch: normalised, disturbed."""
        if self.normalised:
            w = w / self._bound(block).unsqueeze(-1)
            w = w if self.column_bound is None else w.clamp(-1, 1)
        if self.training:
            w = self.noise.disturb(w, self._now.before, self._now.seed, f"{self.name}/{block.index}")
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
        scales, reads, name = self._now.scales[block.index], self.settings.sigma_w > 0, f"{self.name}/{block.index}"
        if self.noise.in_few_passes:
            how = Disturbance.of(self.noise, name, self._now, self.batches.scratch)
            noisy, magnitude = disturbed(weight, scales, how, magnitude=reads)
        else:
            noisy = self._stored(block, weight) * scales.unsqueeze(-1)
            magnitude = (noisy.detach().abs() if reads else scales.new_empty(0)).to(side_type())
        kernels = [self.contraction.kernel_of(w, block.first_row) if w.numel() else w for w in (noisy, magnitude)]
        return FusedBlock(main=kernels[0], magnitude=kernels[1])

    def _begin(self, weight: Tensor, call: int) -> None:
        """Before a call: what it meets. call: as of ``_call``."""
        if not self.training:
            self._now = Met(scales=self._remapped(self._clipped(weight)))
            return
        batch = self.batches.of_call(call, self.op)
        if batch.serial not in self._met:
            if made_again():
                raise TrainingError(
                    f"{self.op!r} is to be made again for a backward pass, but its weight has been updated since: go "
                    "backward before the optimiser's step"
                )
            self._met[batch.serial] = self._first_met(weight, batch.seed)
        self._now = self._met[batch.serial]

    @torch.inference_mode(False)
    def _first_met(self, weight: Tensor, seed: int) -> Met:
        """Once a mini-batch, before anything else: scale the weights. What is made outlives the mini-batch."""
        before = int(self.seen)
        if self._version != weight._version:
            self._met.clear()  # no backward pass may come to them any more
        elif len(self._met) == OUTSTANDING:
            del self._met[next(iter(self._met))]
        self._version = weight._version
        self._following.begin()
        met = Met(scales=self.column_scale, before=before, seed=seed)
        if before % self.recipe.remap_every == 0:
            scales_itself = self.noise.in_few_passes and self._fuses(weight)
            met.due = scales_itself and self.chip.nonidealities.digital.column_scale_bits == "off"
            # Anew, not in place: the former one may be wanted backward.
            self.column_scale = met.scales = met.scales.clone() if met.due else self._remapped(weight)
            if self.column_bound is not None and not before and self.name == self.op:
                with torch.no_grad():
                    self.column_bound.copy_(self.column_scale)
        self.seen.add_(1)
        return met

    def hold(self, weight: Tensor, *, trained: bool) -> bool:
        """Hold weights to the bounds of the recipe, in place, where an update has been since the last call; says
        whether. weight: as of ``forward``, detached; trained: whether it is."""
        fresh = not trained or not int(self.seen)
        return self.normalised and self.holding.hold(weight, self.column_scale, fresh=fresh)

    @torch.no_grad()
    def _remapped(self, weight: Tensor) -> Tensor:
        """(row blocks, groups, columns): the scale of each column with which its largest weight is 1."""
        if not self.normalised:
            return self.column_scale
        bits = self.chip.nonidealities.digital.column_scale_bits
        return torch.stack([column_scales(weight.detach(), block, bits) for block in self.blocks])

    @property
    def rewrites(self) -> bool:
        """Whether ``mapped`` is another weight."""
        return self.column_gain is not None or self.column_bound is not None

    @torch.no_grad()
    def mapped(self, weight: Tensor) -> Tensor:
        """What the compiler gets: (groups, columns, rows), clipped to learned bounds, learned gains multiplied in."""
        clipped = self._clipped(weight.detach())
        if self.column_gain is None:
            return clipped
        gains = self.column_gain.unsqueeze(-1)
        return torch.cat([rows_of(clipped, block) * gains[block.index] for block in self.blocks], dim=2)

    def extra_repr(self) -> str:
        return f"{self.name}, {'x'.join(map(str, self.shape))}, pieces={len(self.pieces)}"
