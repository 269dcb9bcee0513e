"""Dealing the windows of a mixture of experts: from a Workload of every expert for every token to the assumed share.

The matrices of experts carry a ``Routing``. From them the share of the windows spreads over what is computed of an
expert's outputs alone: its activation, its second matrix, its product with the router's weight (what was not dealt to
it has weight zero and need not be multiplied). It ends where outputs meet those of other experts or the rest of the
network: at a sum, a choice by index, a norm over all of them. There each window waits for the expert's windows up to
its share, and only the elements of dealt windows are added.

Windows are dealt evenly in time: of every run of ``experts / active`` of them an expert sees one, and it may be the
last of the run.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

from aimc_compiler.chip.costs import FREE
from aimc_compiler.errors import RuleError
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access, DigitalOp, MatrixOp, Routing, Workload

_SAME = Access(kind="same")
#: Products with what is zero where nothing was dealt.
_PRODUCTS = frozenset(["mul", "multiply", "div", "divide", "true_divide"])
_JOINS = frozenset(["cat", "stack", "concat", "concatenate"])
#: Classes that work on each window, or element, by itself.
_WITHIN = frozenset([FREE, "elementwise", "transcendental", "movement"])
#: Where outputs meet, only what was dealt is added or reduced.
_SHARED_WORK = frozenset(["elementwise", "reduction"])


@record
class _Share:
    """What a tensor holds of a mixture: of one expert, or (None) of all side by side; fraction: of its windows."""

    mixture: str
    expert: int | None
    fraction: Fraction


def deal_windows(workload: Workload) -> Workload:
    """The workload with the windows that each expert is assumed to see; itself where no operation has a routing.

    Raises RuleError where the assumption cannot hold: an expert inside a recurrent loop or of a convolution, one that
    reads another of its mixture, choices that are no whole number a token, an output of the network that only some
    tokens have.
    """
    return _Dealing(workload).run() if workload.routings else workload


class _Dealing:
    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.before = {tensor.name: tensor for tensor in workload.tensors}
        self.tensors = dict(self.before)
        self.shares: dict[str, _Share] = {}

    def run(self) -> Workload:
        ops = tuple(self._matrix(op) if isinstance(op, MatrixOp) else self._digital(op) for op in self.workload.ops)
        for name in self.workload.outputs:
            if name in self.shares:
                raise RuleError(
                    f"output {name!r} of {self.workload.name} is made of an expert's outputs alone "
                    f"({self.shares[name].mixture}), which only some tokens have: add the experts' outputs up in the "
                    "network, or leave out the rule's `experts`"
                )
        return replace(self.workload, tensors=tuple(self.tensors[name] for name in self.before), ops=ops)

    def _matrix(self, op: MatrixOp) -> MatrixOp:
        held, routing = self.shares.get(op.input), op.routing
        if routing is None:
            return replace(op, access=self._access(op, op.input, op.access, op.output))
        _require_dealable(op, routing)
        if held is not None and held.mixture == routing.mixture and held.expert != routing.expert:
            raise RuleError(
                f"{op.name!r} would be expert {routing.expert} of {routing.mixture!r}, but reads what expert "
                f"{held.expert} of it makes: experts stand side by side. Write the rule's pattern so that it matches "
                "the experts of one mixture and nothing inside them that is numbered alike"
            )
        windows = routing.windows_of(op.windows)
        fraction = Fraction(windows, op.windows)
        self._deal(op.output, _Share(mixture=routing.mixture, expert=routing.expert, fraction=fraction))
        access = self._access(op, op.input, _plain(op.access), op.output)
        return replace(op, windows=windows, computed=op.windows, access=access)

    def _digital(self, op: DigitalOp) -> DigitalOp:
        held = [self.shares[name] for name in op.inputs if name in self.shares]
        if not held:
            return op
        share = _result_share(op, held, whole=len(held) == len(op.inputs))
        if share is not None and not share.fraction:
            return self._idle(op, share)
        work = op.work
        if share is not None:
            self._deal(op.output, share)
            work = ceil(op.work * share.fraction)
        elif op.cost_class in _SHARED_WORK:
            work = ceil(op.work * max(each.fraction for each in held))
        accesses = (
            self._access(op, name, access, op.output) for name, access in zip(op.inputs, op.accesses, strict=True)
        )
        return replace(op, accesses=tuple(accesses), work=work)

    def _idle(self, op: DigitalOp, share: _Share) -> DigitalOp:
        """An operation of an expert that sees nothing: it reads only what is never made, so it is never made either."""
        self._deal(op.output, share)
        kept = [(name, access) for name, access in zip(op.inputs, op.accesses, strict=True) if name in self.shares]
        return replace(op, inputs=tuple(n for n, _ in kept), accesses=tuple(a for _, a in kept), work=0)

    def _deal(self, name: str, share: _Share) -> None:
        """Leave a tensor its share, in windows, or in each of them where they do not divide; an idle one stays."""
        whole = self.before[name]
        self.shares[name] = share
        windows = whole.windows * share.fraction
        if not windows:
            return
        if windows.denominator == 1:
            self.tensors[name] = replace(whole, windows=int(windows))
        else:
            self.tensors[name] = replace(whole, width=ceil(whole.width * share.fraction))

    def _access(self, op: MatrixOp | DigitalOp, source: str, access: Access, output: str) -> Access:
        """An access between tensors of which one, or both, hold a share of their windows."""
        if access.kind == "all" or (source not in self.shares and output not in self.shares):
            return access
        if access.kind != "same":
            raise RuleError(
                f"{op.name!r} ({op.source or 'no line kept'}) reads {source!r}, windows of an expert's share, with "
                f"access {access.kind!r}: windows are dealt one by one, so a rule's `experts` is for linear layers"
            )
        before, after = self.tensors[source].windows, self.tensors[output].windows
        return access if before == after else Access(kind="dealt", input_size=(before,), output_size=(after,))


def _result_share(op: DigitalOp, held: Sequence[_Share], *, whole: bool) -> _Share | None:
    """The share that a result holds; None where shares end. whole: nothing else is read."""
    first = held[0]
    if any(share.mixture != first.mixture for share in held):
        return None
    if len({share.expert for share in held}) > 1:
        if op.op not in _JOINS or not whole:
            return None
        # Side by side: a stack of which each token has as much as its experts make.
        return _Share(
            mixture=first.mixture, expert=None, fraction=sum((s.fraction for s in held), Fraction()) / len(held)
        )
    if not whole:
        return first if op.op in _PRODUCTS else None
    return first if first.expert is not None or op.cost_class in _WITHIN else None


def _plain(access: Access) -> Access:
    """A kernel of one place that goes nowhere is window by window."""
    single = access.kind == "sliding" and access.input_size == access.output_size and set(access.kernel) == {1}
    return _SAME if single else access


def _require_dealable(op: MatrixOp, routing: Routing) -> None:
    if op.access.kind == "previous":
        raise RuleError(
            f"{op.name!r} multiplies in the loop of a recurrent layer, whose steps cannot be dealt to experts: leave "
            "it out of the rule's pattern"
        )
    if routing.choices and op.windows % routing.active:
        raise RuleError(
            f"{op.name!r} multiplies {op.windows} vectors a sample, each by the expert chosen for it: that is no whole "
            f"number of tokens at active: {routing.active}. Give the number of experts that the network chooses a token"
        )
