"""Compiled passes on the threads of torch's own pool, without Python on the way.

``aimc_compiler.analog.pool`` runs Python on every thread, whose lock goes to and fro for 0.1 ms, longer than most
passes of a training step take. Here a compiled function enters libgomp itself, and its threads run a compiled kernel.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def in_parts(typing_context: Any, entry: Any, parts: Any, count: Any, kernel: Any, arguments: Any) -> Any:
    """``kernel(*arguments, first, last)`` for ``parts`` near-equal parts of 0 to ``count``, on as many threads; for all
    of it on this one where parts is less than 2 or there is no pool.

    entry: the address of ``GOMP_parallel``, 0 for none; kernel: a compiled function that returns nothing; arguments: a
    tuple.
    """
    signature = kernel.get_call_type(typing_context, (*arguments.types, types.int64, types.int64), {})
    return types.void(entry, parts, count, kernel, arguments), _Region(kernel, signature, arguments).generate


class _Region:
    """What ``in_parts`` compiles to. The threads share a struct: next part, parts, count, arguments."""

    def __init__(self, kernel: Any, signature: Any, arguments: Any) -> None:
        self._kernel, self._signature, self._arguments = kernel, signature, arguments

    def generate(self, context: Any, builder: Any, _: Any, values: Any) -> Any:
        entry, parts, count, _, arguments = values
        word, byte_pointer = ir.IntType(64), ir.IntType(8).as_pointer()
        shared = cgutils.alloca_once(
            builder, ir.LiteralStructType([word, word, word, context.get_value_type(self._arguments)])
        )
        pooled = builder.and_(builder.icmp_signed(">", parts, word(1)), builder.icmp_signed("!=", entry, word(0)))
        parts = builder.select(pooled, parts, word(1))
        for place, value in enumerate((word(0), parts, count, arguments)):
            builder.store(value, cgutils.gep_inbounds(builder, shared, 0, place))
        function = self._function(context, builder, shared.type)
        threads = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [function.type, byte_pointer, threads, threads])
        pool = builder.inttoptr(entry, kind.as_pointer())
        data = builder.bitcast(shared, byte_pointer)
        with builder.if_else(pooled) as (by_pool, here):
            with by_pool:
                builder.call(pool, [function, data, builder.trunc(parts, threads), threads(0)])
            with here:
                builder.call(function, [data])
        return context.get_dummy_value()

    def _function(self, context: Any, builder: Any, shared: Any) -> Any:
        """What each thread runs: it takes parts until there is none."""
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
        function = ir.Function(builder.module, kind, name=builder.module.get_unique_name("aimc_region"))
        function.linkage = "internal"
        start, head, body, end = (function.append_basic_block(name) for name in ("start", "head", "body", "end"))
        inner = ir.IRBuilder(start)
        data = inner.bitcast(function.args[0], shared)
        after, parts, count, arguments = (cgutils.gep_inbounds(inner, data, 0, place) for place in range(4))
        inner.branch(head)
        inner.position_at_end(head)
        part = inner.atomic_rmw("add", after, word(1), "monotonic")
        total = inner.load(parts)
        inner.cbranch(inner.icmp_signed("<", part, total), body, end)
        inner.position_at_end(body)
        rows = inner.load(count)
        cuts = [inner.sdiv(inner.mul(rows, at), total) for at in (part, inner.add(part, word(1)))]
        self._call(context, builder, inner, [*cgutils.unpack_tuple(inner, inner.load(arguments)), *cuts])
        inner.branch(head)
        inner.position_at_end(end)
        inner.ret_void()
        return function

    def _call(self, context: Any, builder: Any, inner: Any, arguments: Any) -> None:
        """The kernel raises nothing, so its status is left."""
        found = self._kernel.dispatcher.overloads[self._signature.args]
        context.add_linking_libs([found.library])
        kernel = context.declare_function(builder.module, found.fndesc)
        context.call_conv.call_function(inner, kernel, types.none, self._signature.args, arguments)
