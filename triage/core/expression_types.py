"""The types of a CEL expression, found without evaluating it.

`celpy` finds a wrong type only when it comes upon it, which may be months after a model was
registered. This is the part of CEL's type system that conditions need; what it does not know, no
expression may use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celpy.evaluation import CELEvalError, function_matches
from lark import Token, Tree

Declared = Mapping[str, Mapping[str, str]]

_NUMBERS = ("int", "double")
_ORDERED = (*_NUMBERS, "string")
_TEXT_METHODS = ("contains", "startsWith", "endsWith", "matches")
_MACROS = {"all": "bool", "exists": "bool", "exists_one": "bool", "filter": "", "map": ""}
_CONVERSIONS = ("double", "int", "string")
_LITERALS = {
    "FLOAT_LIT": "double",
    "INT_LIT": "int",
    "STRING_LIT": "string",
    "MLSTRING_LIT": "string",
    "BOOL_LIT": "bool",
}


class TypeMistake(Exception):  # noqa: N818  a mistake of who wrote the expression
    """What is wrong, and at which line and column."""

    def __init__(self, message: str, at: Tree[Token] | Token) -> None:
        super().__init__(message)
        token = at if isinstance(at, Token) else next(_tokens(at), None)
        self.line = (token.line if token is not None else None) or 1
        self.column = (token.column if token is not None else None) or 1


def type_of(tree: Tree[Token], declared: Declared) -> str:
    """Return the CEL type of an expression over the `declared` maps of variables.

    Raises:
        TypeMistake: a name is unknown, an operator has operands that do not fit, or a function is
            none of those that conditions may use.
    """
    return _Types(declared).of(tree)


def _tokens(tree: Tree[Token]) -> Any:
    return tree.scan_values(lambda value: isinstance(value, Token))


class _Types:
    """One method for each kind of node of celpy's grammar that is more than a wrapper."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._bound: dict[str, str] = {}

    def of(self, node: Any) -> str:
        method = getattr(self, f"_{node.data}", None)
        if method is not None and (len(node.children) > 1 or node.data in _LEAVES):
            return str(method(node))
        if len(node.children) == 1 and isinstance(node.children[0], Tree):
            return self.of(node.children[0])
        raise TypeMistake("this cannot be used in a condition", node)

    def _expr(self, node: Any) -> str:
        condition, when_true, when_false = node.children
        self._want("bool", condition)
        kind = self.of(when_true)
        self._want(kind, when_false)
        return kind

    def _both_bool(self, node: Any) -> str:
        for side in node.children:
            self._want("bool", side)
        return "bool"

    _conditionalor = _conditionaland = _both_bool

    def _relation(self, node: Any) -> str:
        operator, right = node.children
        (left,) = operator.children
        kinds = self.of(left), self.of(right)
        if operator.data == "relation_in":
            if kinds[1] != f"list({kinds[0]})":
                raise TypeMistake(f"a {kinds[0]} cannot be in a {kinds[1]}", right)
        elif kinds[0] != kinds[1]:
            raise TypeMistake(_difference(*kinds), right)
        elif operator.data not in ("relation_eq", "relation_ne") and kinds[0] not in _ORDERED:
            raise TypeMistake(f"values of type {kinds[0]} have no order", right)
        return "bool"

    def _arithmetic(self, node: Any) -> str:
        operator, right = node.children
        (left,) = operator.children
        kinds = self.of(left), self.of(right)
        if kinds[0] != kinds[1]:
            raise TypeMistake(_difference(*kinds), right)
        allowed = _ORDERED if operator.data == "addition_add" else _NUMBERS
        if kinds[0] not in allowed:
            raise TypeMistake(f"there is no such arithmetic with type {kinds[0]}", right)
        return kinds[0]

    _addition = _multiplication = _arithmetic

    def _unary(self, node: Any) -> str:
        operator, operand = node.children
        kind = self.of(operand)
        allowed = ("bool",) if operator.data == "unary_not" else _NUMBERS
        if kind not in allowed:
            raise TypeMistake(f"type {kind} cannot be negated so", operand)
        return kind

    def _member_dot(self, node: Any) -> str:
        owner, name = node.children
        group = _identifier(owner)
        if group in self._bound or group not in self._declared:
            raise TypeMistake("only series, study and patient have members", name)
        known = self._declared[group]
        if name not in known:
            raise TypeMistake(f"{group} has no {name}; it has {', '.join(known)}", name)
        return known[str(name)]

    def _member_dot_arg(self, node: Any) -> str:
        owner, name, arguments = (*node.children, None)[:3]
        given = _arguments(arguments)
        kind = self.of(owner)
        if name in _MACROS and kind.startswith("list("):
            return self._macro(str(name), kind, given, name)
        if name == "size" and not given and (kind == "string" or kind.startswith("list(")):
            return "int"
        if name not in _TEXT_METHODS or kind != "string" or len(given) != 1:
            raise TypeMistake(f"a {kind} has no function {name} with {len(given)} arguments", name)
        self._want("string", given[0])
        if name == "matches":
            _check_pattern(given[0])
        return "bool"

    def _macro(self, name: str, kind: str, given: Sequence[Any], at: Token) -> str:
        if self._bound:
            raise TypeMistake(f"{name} cannot stand within another such function", at)
        variable = _identifier(given[0]) if len(given) == 2 else ""
        if not variable:
            raise TypeMistake(f"{name} takes a name and an expression over it", at)
        self._bound[variable] = kind[5:-1]
        inner = self.of(given[1])
        self._bound.clear()
        if name == "map":
            return f"list({inner})"
        if inner != "bool":
            raise TypeMistake(f"{name} takes a condition, found type {inner}", given[1])
        return _MACROS[name] or kind

    def _member_index(self, node: Any) -> str:
        owner, index = node.children
        kind = self.of(owner)
        if not kind.startswith("list("):
            raise TypeMistake(f"a {kind} has no elements", index)
        self._want("int", index)
        return kind[5:-1]

    def _ident(self, node: Any) -> str:
        name = str(node.children[0])
        if name in self._bound:
            return self._bound[name]
        if name in self._declared:
            raise TypeMistake(f"{name} alone says nothing; write {name}.…", node)
        raise TypeMistake(f"{name} is unknown; there are {', '.join(self._declared)}", node)

    def _ident_arg(self, node: Any) -> str:
        name, arguments = (*node.children, None)[:2]
        given = _arguments(arguments)
        if len(given) == 1 and name == "has":
            if next(given[0].find_data("member_dot"), None) is None:
                raise TypeMistake("has takes a member, as in has(series.contrast)", given[0])
            self.of(given[0])
            return "bool"
        if len(given) == 1 and name == "size":
            kind = self.of(given[0])
            if kind == "string" or kind.startswith("list("):
                return "int"
        elif len(given) == 1 and name in _CONVERSIONS:
            if self.of(given[0]) in _ORDERED:
                return str(name)
        else:
            raise TypeMistake(f"there is no function {name} with {len(given)} arguments", name)
        raise TypeMistake(f"{name} does not take this type", given[0])

    def _list_lit(self, node: Any) -> str:
        given = _arguments(node.children[0] if node.children else None)
        kinds = {self.of(each) for each in given}
        if len(kinds) != 1:
            raise TypeMistake("a list needs elements, all of one type", node)
        return f"list({kinds.pop()})"

    def _literal(self, node: Any) -> str:
        token = node.children[0]
        kind = _LITERALS.get(token.type)
        if kind is None:
            raise TypeMistake(f"{token} cannot be used in a condition", token)
        return kind

    def _want(self, kind: str, node: Any) -> None:
        found = self.of(node)
        if found != kind:
            raise TypeMistake(f"expected type {kind}, found {found}", node)


_LEAVES = frozenset({"literal", "ident", "ident_arg", "list_lit", "member_dot_arg"})


def _arguments(node: Any) -> list[Any]:
    return list(node.children) if node is not None else []


def _identifier(node: Any) -> str:
    """Return the name if `node` is nothing but one, else ""."""
    while isinstance(node, Tree) and len(node.children) == 1:
        if node.data == "ident":
            return str(node.children[0])
        node = node.children[0]
    return ""


def _difference(left: str, right: str) -> str:
    advice = "; write whole numbers with a point, as 3.0" if {left, right} == set(_NUMBERS) else ""
    return f"a {left} and a {right} do not go together{advice}"


def _check_pattern(node: Any) -> None:
    token = next(_tokens(node), None)
    if token is None or token.type != "STRING_LIT":
        raise TypeMistake("matches takes a pattern that is written out", node)
    text = str(token)
    is_raw = text[0] in "rR"
    pattern = text[2:-1] if is_raw else text[1:-1].replace("\\\\", "\\")
    if isinstance(function_matches("", pattern), CELEvalError):
        raise TypeMistake("this is no regular expression", token)
