"""How deep the value stack of a frame is at an instruction, from the bytecode alone.

CPython before 3.14 keeps the stack pointer of a frame that calls C code in a register, so whoever
looks from outside does not know how much of the value stack is in use. The compiler makes code in
which the depth depends on the instruction only; here it is found again, as the compiler does it
(Python/compile.c, stackdepth), and what of it is owned for certain while the instruction runs.
"""

from __future__ import annotations

import dis
import sys
from itertools import pairwise

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

#: Nothing else is known of the instruction.
PLAIN = 0
#: A `with` statement is calling __enter__, of the object that is, or was, in the next slot.
IN_WITH = 1
#: A call with * and **: function, tuple and dict are the last of the slots.
HAS_COPIES = 2

#: While these run, all of their operands stay where they are, owned.
_WHOLE = frozenset(
    {
        "BINARY_OP", "BINARY_SUBSCR", "CALL", "CALL_KW", "COMPARE_OP", "CONTAINS_OP", "FOR_ITER",
        "LOAD_ATTR", "PRECALL", "SEND", "WITH_EXCEPT_START",
    }
)  # fmt: skip
#: What puts a tuple of positional arguments on the stack that a call leaves there.
_TUPLES = ("LOAD_", "LIST_TO_TUPLE", "CALL_INTRINSIC_1", "BUILD_TUPLE")
#: After these the next instruction does not follow.
_ENDS = frozenset(
    {
        "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_FORWARD", "RAISE_VARARGS", "RERAISE",
        "RETURN_CONST", "RETURN_VALUE",
    }
)  # fmt: skip
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def _effect(instruction: dis.Instruction, jump: bool) -> int:
    """How much deeper the stack is after it."""
    if sys.version_info < (3, 12):
        # There the compiler counts a call's arguments as taken by the first of two instructions.
        if instruction.opname == "PRECALL":
            return 0
        if instruction.opname == "CALL":
            return -1 - (instruction.arg or 0)
    arg = instruction.arg if instruction.opcode >= dis.HAVE_ARGUMENT else None
    return dis.stack_effect(instruction.opcode, arg, jump=jump)


def _all_depths(code: CodeType, instructions: list[dis.Instruction], start: int) -> dict[int, int]:
    """The depth before each instruction that can be reached, by offset."""
    following = {a.offset: b.offset for a, b in pairwise(instructions)}
    by_offset = {instruction.offset: instruction for instruction in instructions}
    todo = [(0, start)]
    todo += [
        (entry.target, entry.depth + entry.lasti + 1)
        for entry in dis._parse_exception_table(code)  # type: ignore[attr-defined]
    ]
    found: dict[int, int] = {}
    while todo:
        offset, depth = todo.pop()
        if offset in found:
            continue
        found[offset] = depth
        instruction = by_offset[offset]
        if instruction.opcode in _JUMPS:
            todo.append((instruction.argval, depth + _effect(instruction, True)))
        if instruction.opname not in _ENDS and offset in following:
            todo.append((following[offset], depth + _effect(instruction, False)))
    return found


def _owned(instructions: list[dis.Instruction], at: int, found: dict[int, int]) -> tuple[int, int]:
    """What is owned at the instruction in place `at`, and what else is known."""
    instruction = instructions[at]
    depth = found.get(instruction.offset, 0)
    if instruction.opname in _WHOLE:
        return depth, PLAIN
    if instruction.opname == "BEFORE_WITH":
        return depth - 1, IN_WITH
    if instruction.opname == "CALL_FUNCTION_EX":
        # Arguments that are no tuple are replaced by one that stands nowhere.
        mapping = (instruction.arg or 0) & 1
        for i in range(at - 1, -1, -1):
            if found.get(instructions[i + 1].offset) == depth - mapping:
                is_tuple = instructions[i].opname.startswith(_TUPLES)
                if not is_tuple:
                    return depth - 1 - mapping, PLAIN
                return depth, HAS_COPIES if mapping else PLAIN
    return 0, PLAIN


def owned_depth(code: CodeType, offset: int) -> tuple[int, int]:
    """How many slots of the value stack are surely owned, from the bottom, at an instruction.

    Args:
        code: what the frame runs.
        offset: of the instruction in `code.co_code`.

    Returns:
        The number, and one of PLAIN, IN_WITH and HAS_COPIES.
    """
    instructions = list(dis.get_instructions(code))
    found = _all_depths(code, instructions, 0)
    if found and min(found.values()) < 0:
        found = _all_depths(code, instructions, 1)  # a generator begins with what it is sent
    if not found or min(found.values()) < 0 or max(found.values()) > code.co_stacksize:
        return 0, PLAIN
    for at, instruction in enumerate(instructions):
        if instruction.offset == offset:
            return _owned(instructions, at, found)
    return 0, PLAIN
