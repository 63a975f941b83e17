"""What a mutant differs in: cosmic-ray's operators that change a meaning, and ours for what it has none for."""

import ast
import re
from collections.abc import Iterator
from itertools import count

from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword
from parso.tree import Leaf, NodeOrLeaf

# Of each operator its negation and its bound. The rest, ten more for every sign, falls with the first test that runs
# the line: it would cost hours, and flatter the score. `|` is left out: here it stands in annotations, and for updates.
REPLACED = {
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is",
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div Mod_FloorDiv",
    "Unary": "USub_UAdd Delete_Not",
}
OTHERS = (
    "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue"
    " ReplaceContinueWithBreak NumberReplacer RemoveDecorator ZeroIterationForLoop"
)
CORE = [f"Replace{kind}Operator_{pair}" for kind, pairs in REPLACED.items() for pair in pairs.split()] + OTHERS.split()

_PAIRS = ((ast.Eq, ast.NotEq), (ast.Lt, ast.GtE), (ast.LtE, ast.Gt), (ast.Is, ast.IsNot), (ast.In, ast.NotIn))
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}

IS_SQL = re.compile(r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE \w+ (AS \w+ )?SET)\b")
IN_SQL = [
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in [
        (r" > (?=now)", " <= "),  # of times the other side: nobody sees a bound that is a microsecond wide
        (r" <= (?=now)", " > "),
        (r" < (?=%s)", " >= "),
        (r" >= (?!now)", " > "),
        (r" <> ", " = "),
        (r" AND ", " OR "),
        (r"WHEN ((?:(?!WHEN| > now).)+?)\s+THEN", r"WHEN NOT (\1) THEN"),
        (r" \+ ", " - "),
        (r" - (?=1|number|%\(count\)|now\(\))", " + "),
        (r" - %\(attempt\)s::text", ""),
        (r" \|\| .+?(?= END)", ""),
        (r"\btrue\b", "false"),
        (r"\bfalse\b", "true"),
        (r" ON CONFLICT DO NOTHING", ""),
        (r"WHERE pg_try_advisory_xact_lock\([^)]*\)s\)", ""),
    ]
]


Positions = Iterator[tuple[tuple[int, int], tuple[int, int]]]


class Ours(Operator):
    """An operator that is tested where the others of ours are."""

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class InSql(Ours):
    """Turns one comparison, connective, sign or condition of an SQL text over."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        for _ in self._mutants(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        node.value = list(self._mutants(node))[index]
        return node

    @staticmethod
    def _mutants(node: NodeOrLeaf) -> Iterator[str]:
        whole = node.parent if node.type == "fstring_string" else node
        if node.type not in ("string", "fstring_string") or not IS_SQL.search(whole.get_code()):
            return
        for pattern, replacement in IN_SQL:
            for found in pattern.finditer(node.value):
                yield node.value[: found.start()] + found.expand(replacement) + node.value[found.end() :]


class WithoutStatement(Ours):
    """Drops a call whose value nobody takes, a `raise`, or an assignment to an attribute."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        if node.parent and node.parent.type == "simple_stmt" and self._acts(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> Leaf:
        return Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @staticmethod
    def _acts(node: NodeOrLeaf) -> bool:
        assigned = node.type == "expr_stmt" and node.children[0].type == "atom_expr"
        return assigned or node.type in ("atom_expr", "raise_stmt")


class CatchNothing(Ours):
    """Lets through what a handler caught. cosmic-ray's own operator fails on `except binascii.Error` (8.7)."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        if node.type == "except_clause":
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        node.children[1] = Keyword("()", node.children[1].start_pos, prefix=" ")
        return node


class _Plain(ast.NodeTransformer):
    """Writes `not a == b` as `a != b`, and `not not a` as `a`; a class's decorator loses its options.

    `frozen` and `slots` of a dataclass forbid what nobody does, and change no answer.
    """

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):
                decorator.keywords = []
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        inner = node.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not):
            return inner.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.Compare) and len(inner.ops) == 1:
            inner.ops = [OPPOSITE[type(inner.ops[0])]()]
            return inner
        return node


def meaning(source: str) -> str | None:
    """The same for two spellings of one thing; None of what is no Python."""
    try:
        return ast.dump(_Plain().visit(ast.parse(source)))
    except SyntaxError:
        return None


def mutants_of(source: str) -> Iterator[str]:
    """The module with one thing changed, each change once."""
    seen = {None, meaning(source)}
    for operator in [*(get_operator(f"core/{name}")() for name in CORE), InSql(), WithoutStatement(), CatchNothing()]:
        for occurrence in count():
            mutant = mutate_code(source, operator, occurrence)
            if mutant is None:
                break
            if (told := meaning(mutant)) not in seen:
                seen.add(told)
                yield mutant
