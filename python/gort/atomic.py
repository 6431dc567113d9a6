"""Go's sync/atomic: Int, Bool and Value, which goroutines and threads change in single steps.

The types are compiled. All goroutines and threads see their operations in one order. `x += 1` of a
variable is several steps; `n.add(1)` of an Int is one.
"""

from __future__ import annotations

from gort._core import Bool, Int, Value

__all__ = ["Bool", "Int", "Value"]
