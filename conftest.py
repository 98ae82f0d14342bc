"""What stands before all tests: where shapes are checked, and an import that no doctest may precede."""

import ast

import tyro  # before any doctest: it hashes `builtins._`, and fails where a doctest has left a list there
from jaxtyping._import_hook import JaxtypingTransformer

__all__ = ["tyro"]

_check = JaxtypingTransformer.visit_FunctionDef


def _check_shapes(hook: JaxtypingTransformer, node: ast.FunctionDef) -> ast.AST:
    """Checks functions that state a shape; plain types are mypy's.

    With those checked too, the theory takes about ten times as long. Functions inside functions are not checked
    either: every call of the outer one would compile their checks again.
    """
    inner = any(isinstance(parent, ast.FunctionDef) for parent in hook._parents)
    stated = (*(x.annotation for x in ast.walk(node.args) if isinstance(x, ast.arg)), node.returns)
    shaped = any(kind in ast.unparse(x) for x in stated if x for kind in ("Float[", "Int[", "Bool["))
    hook._no_type_check_level += inner or not shaped
    checked: ast.AST = _check(hook, node)
    hook._no_type_check_level -= inner or not shaped
    return checked


JaxtypingTransformer.visit_FunctionDef = _check_shapes
