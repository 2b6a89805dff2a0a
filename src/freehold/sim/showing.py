"""Programs as people read them."""

from __future__ import annotations

from freehold.sim.ops import (
    Call,
    Cancel,
    Close,
    Drop,
    Enroll,
    Exit,
    Forget,
    Get,
    Group,
    Invoke,
    Keep,
    Kill,
    Make,
    Op,
    Peek,
    Program,
    Put,
    Quit,
    Raise,
    Ready,
    Remove,
    Sleep,
    Stream,
    Take,
    Wait,
    Yield,
)
from freehold.sim.steps import Further


def show(program: Program) -> str:
    """The program as people read it."""
    lines = []
    for number, body in enumerate(program.functions):
        if not body.ops and not body.returns and number:
            continue
        lines.append("main:" if not number else f"f{number}:")
        lines += [f"    {show_op(op)}" for op in body.ops]
        if body.returns:
            lines.append(f"    return [{', '.join(body.returns)}]")
    return "\n".join(lines)


def show_op(op: Op) -> str:  # long: one line per operation
    """One operation as people read it."""
    match op:
        case Put():
            inside = f", containing {', '.join(op.contains)}" if op.contains else ""
            return f"{op.var} = put({op.size} bytes{inside})"
        case Call():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            sizes = ", ".join(f"{size}" for size in op.sizes)
            retry = ", retry_exceptions" if op.retry_exceptions else ""
            return (
                f"{op.var} = f{op.function}({', '.join(args)}) -> ({sizes}) bytes, "
                f"{op.cpus:g} cpus, {op.retries} retries{retry}"
                f"{f', in bundle {op.bundle} of {op.within}' if op.within else ''}"
            )
        case Get():
            timeout = "" if op.timeout is None else f", timeout={op.timeout:g}"
            return f"get({', '.join(op.vars)}{timeout}){' and hold' if op.hold else ''}"
        case Wait():
            fetch = ", fetch" if op.fetch else ""
            return f"wait({', '.join(op.vars)}, {op.needed}, timeout={op.timeout}{fetch})"
        case Drop():
            return f"del {op.var}"
        case Cancel():
            how = f"{', force' if op.force else ''}{', recursive' if op.recursive else ''}"
            how += f", grace {op.grace:g}" if op.grace != 1.0 else ""
            return f"cancel({op.var}{how})"
        case Make():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            return (
                f"{op.var} = actor f{op.function}({', '.join(args)}), {op.restarts} restarts, "
                f"{op.limit} at once, {op.cpus:g} cpus{'' if op.node < 0 else f', on n{op.node}'}"
            )
        case Invoke():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            sizes = ", ".join(f"{size}" for size in op.sizes)
            retry = ", retry_exceptions" if op.retry_exceptions else ""
            return (
                f"{op.var} = {op.actor}.f{op.function}({', '.join(args)}) -> ({sizes}) bytes, "
                f"{op.retries} retries{retry}"
            )
        case Kill():
            return f"kill({op.var}{', restart' if op.restart else ''})"
        case Quit():
            return f"exit_actor() in the first {op.first} executions"
        case Keep():
            return f"globals()[{op.slot}] = {op.var}"
        case Peek():
            return f"get(globals()[{op.slot}], timeout={op.timeout:g})"
        case Forget():
            return f"del globals()[{op.slot}]"
        case Sleep():
            return f"sleep({op.seconds:g})"
        case Raise():
            return f"raise in the first {op.first} executions"
        case Exit():
            return f"exit in the first {op.first} executions"
        case _:
            return show_further(op)


def show_further(op: Further) -> str:
    """An operation on streams or placement groups as people read it."""
    match op:
        case Stream():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            retry = ", retry_exceptions" if op.retry_exceptions else ""
            return (
                f"{op.var} = stream of {f'{op.actor}.' if op.actor else ''}f{op.function}"
                f"({', '.join(args)}), window {op.window}, {op.cpus:g} cpus, "
                f"{op.retries} retries{retry}"
            )
        case Take():
            patience = "" if op.patience is None else f", first for {op.patience:g} s each"
            return f"{op.var}... = next {op.count} of {op.stream}{patience}"
        case Close():
            return f"close {op.stream}"
        case Yield():
            inside = f", containing {', '.join(op.contains)}" if op.contains else ""
            return f"yield {op.size} bytes{inside}, {op.times} times"
        case Group():
            bundles = ", ".join(f"{cpus:g}" for cpus in op.bundles)
            return f"{op.var} = group({bundles} cpus, {op.strategy})"
        case Ready():
            return f"wait for {op.group}, timeout={op.timeout:g}"
        case Enroll():
            makes = f", made by f{op.function}" if op.function >= 0 else ""
            return (
                f"call f{op.method} of actor {op.name!r}{makes}, {op.restarts} restarts, "
                f"timeout={op.timeout:g}{', and hold' if op.hold else ''}"
            )
        case Remove():
            return f"remove {op.group}"
