"""Typeset the formulas in a line of plain text, such as `y_j = r_j + gamma max_a' Q`, as MathML.

The scripts hold their pseudocode and formulas as ASCII, so that they read well in an editor; here
the same characters become formulas, and nothing is written twice. `inline(text)` gives HTML: words
as they are, each formula as a `<math>` element. What is taken for a formula: Greek names, single
letters that are no articles, functions such as max and log, whatever is joined to these by
operators, and the brackets that belong to them.
"""

from __future__ import annotations

import html
import re

GREEK = dict(
    zip(
        "alpha beta gamma delta epsilon eps theta phi pi mu tau lambda sigma Delta".split(),
        "α β γ δ ε ε θ φ π μ τ λ σ Δ".split(),
        strict=True,
    )
)
FUNCTIONS = {"max", "min", "log", "argmax", "KL", "clip"}
PRODUCTS = {"NT"}  # of single letters
OPERATORS = {
    "<-": "←",
    "==": "=",
    "<=": "≤",
    ">=": "≥",
    "<<": "≪",
    "~": "∼",
    "*": "·",
    "-": "−",
    "+-": "±",
}
BREAK = "\0"  # where a long formula may go on in the next line
PLAIN = set("+=<>/|")
OPEN, CLOSE = "([{", ")]}"
# After a single "a" these words show that it is an action and not an article.
AFTER_A_SYMBOL = {
    "in",
    "from",
    "for",
    "under",
    "and",
    "at",
    "of",
    "is",
    "by",
    "to",
    "with",
    "makes",
    "alone",
    "do",
}

TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<code>`[^`]+`|--[a-z][\w-]*)|(?P<tag>(?<![\w}])\[(?:\d{1,2}|[a-z])\])"
    r"|(?P<word>e\.g\.|i\.e\.|[A-Za-z]{2,}'(?:s|t)\b|[A-Za-z]+(?:-[A-Za-z]{2,})+|[A-Za-z]+\d+[A-Za-z]*\b)"
    r"|(?P<number>\d+(?:[.,]\d+)*)|(?P<name>[A-Za-z]+)|(?P<mark>\.\.\.|<-|==|<=|>=|<<|\+-|.)"
)


def tokens(text: str) -> list[tuple[str, str]]:
    """The text as (kind, characters)."""
    found = []
    for match in TOKEN.finditer(text):
        kind, characters = match.lastgroup, match[0]
        first = characters.split("-")[0]
        if (
            kind == "word" and (first in GREEK or len(first) == 1) and "-" in characters
        ):  # epsilon-greedy, n-step
            found += [("name", first), ("word", characters[len(first) :])]
        else:
            found.append((kind, characters))
    return found


class Typesetter:
    """Reads tokens from left to right; `html` is what it has made of them."""

    def __init__(self, text: str):
        self.tokens, self.i = tokens(text), 0
        self.depth = 0  # of brackets and scripts

    def at(self, offset: int = 0) -> tuple[str, str]:
        i = self.i + offset
        return self.tokens[i] if 0 <= i < len(self.tokens) else ("end", "")

    def after_space(self, offset: int = 0) -> int:
        """The offset of the next token that is not a space."""
        return offset + (self.at(offset)[0] == "space")

    def is_symbol(self, offset: int = 0) -> bool:
        """Whether a formula may begin with this token."""
        kind, characters = self.at(offset)
        if kind != "name":
            return False
        if characters in GREEK or characters in PRODUCTS or characters == "grad":
            return True
        if characters == "sum":
            return self.at(offset + 1)[1] == "_"
        if characters in FUNCTIONS:  # not the English word
            return self.at(offset + 1)[1] in ("_", "(", "[", "]") or (
                self.at(offset + 1)[0] == "space" and self.is_symbol(offset + 2)
            )
        if len(characters) > 1:
            return self.at(offset + 1)[1] == "_" and self.at(offset + 2)[1] == "{"
        if characters in "aA" and self.at(offset + 1)[0] == "space":
            kind, following = self.at(offset + 2)
            if following == '"':  # a "real value"
                return False
            if (
                self.at(offset + 3)[0] == "word"
            ):  # a Q-table: an article before a symbol and the rest of its word
                return False
            if (
                kind == "word" or (kind == "name" and not self.is_symbol(offset + 2))
            ) and following not in AFTER_A_SYMBOL:
                return False
        return True

    # -- a formula

    def script(self) -> str:
        """What stands below or above: `{...}`, or one atom with its scripts, as in pi_theta_old."""
        if self.at()[1] == "{":
            self.i += 1
            self.depth += 2
            inner = self.row(CLOSE)
            self.depth -= 2
            self.i += 1
            return f"<mrow>{inner}</mrow>"
        return self.atom(nested=True)

    def atom(self, nested: bool = False) -> str:
        """A number or a symbol with its primes, indices and powers."""
        kind, characters = self.at()
        self.i += 1
        if kind == "number":
            base = f"<mn>{characters}</mn>"
        elif characters in ("grad", "sum"):
            base = "<mo>∇</mo>" if characters == "grad" else "<mo>∑</mo>"
        elif characters in GREEK:
            base = f"<mi>{GREEK[characters]}</mi>"
        elif characters in PRODUCTS:
            base = "".join(f"<mi>{letter}</mi>" for letter in characters)
        else:
            base = f"<mi>{html.escape(characters)}</mi>"
        while True:
            mark, (kind, following) = self.at()[1], self.at(1)
            if mark == "'" and kind == "mark" and following == "_":  # theta'_v: one above the other
                self.i += 2
                base = f"<msubsup>{base}{self.script()}<mo>′</mo></msubsup>"
            elif mark == "'":
                self.i += 1
                base = f"<msup>{base}<mo>′</mo></msup>"
            elif (
                mark in ("*", "+")
                and not nested
                and characters in ("Q", "pi", "S")
                and kind in ("space", "end", "mark")
            ):
                self.i += 1
                base = f"<msup>{base}<mo>{'∗' if mark == '*' else '+'}</mo></msup>"
            elif mark in ("_", "^") and (kind in ("name", "number") or following == "{"):
                self.i += 1
                tag = "msub" if mark == "_" else "msup"
                base = f"<{tag}>{base}{self.script()}</{tag}>"
            else:
                break
        if characters in FUNCTIONS and not nested:
            base = (
                '<mspace width="0.17em"/>'
                + base
                + ("" if self.at()[1] in ("(", "[") else '<mspace width="0.17em"/>')
            )
        return base

    def group_is_formula(self, offset: int) -> bool:
        """Whether the bracket at this offset holds a formula and not words."""
        depth, words, symbols = 0, 0, 0
        while True:
            kind, characters = self.at(offset)
            if kind in ("end", "code"):
                return False
            depth += (characters in OPEN) - (characters in CLOSE)
            if kind == "word" or (
                kind == "name"
                and not self.is_symbol(offset)
                and self.at(offset - 1)[1] not in ("_", "^")
            ):
                words += 1
            symbols += kind in ("name", "number") or characters == "."
            offset += 1
            if depth == 0:
                return symbols > 0 and (
                    words == 0 or (words == 1 and symbols == 2)
                )  # Q(terminal, .)

    def row(self, until: str) -> str:
        """Everything up to the closing bracket."""
        parts = []
        while self.at()[0] != "end" and self.at()[1] not in until:
            kind, characters = self.at()
            if kind == "space":
                self.i += 1
            elif kind in ("name", "number"):
                parts.append(self.atom() if kind == "number" or self.is_symbol() else self.word())
            elif kind == "mark" and characters in OPEN:
                parts.append(self.group())
            else:
                parts.append(self.operator())
        return "".join(parts)

    def word(self) -> str:
        self.i += 1
        return f"<mtext>{html.escape(self.at(-1)[1])}</mtext>"

    def group(self) -> str:
        left = self.at()[1]
        self.i += 1
        self.depth += 1
        inner = self.row(CLOSE)
        self.depth -= 1
        if len(re.sub("<[^>]*>", "", inner)) < 30:
            inner = inner.replace(BREAK, "")
        right = self.at()[1]
        self.i += 1
        group = f'<mo stretchy="false">{left}</mo>{inner}<mo stretchy="false">{right}</mo>'
        if self.at()[1] == "^":
            self.i += 1
            group = f"<msup><mrow>{group.replace(BREAK, '')}</mrow>{self.script()}</msup>"
        return group

    def operator(self) -> str:
        characters = self.at()[1]
        self.i += 1
        sign = {"...": "…"}.get(characters, OPERATORS.get(characters, characters))
        if sign in "+−·←=∼" and self.depth < 2:
            return f'{BREAK}<mo form="infix">{sign}</mo>'
        form = ' separator="true"' if sign in ",;" else ' stretchy="false"' if sign == "|" else ""
        return f"<mo{form}>{html.escape(sign)}</mo>"

    def formula(self) -> str:
        """From a symbol as far as the formula goes."""
        parts = [self.group() if self.at()[1] in OPEN else self.atom()]
        while True:
            kind, characters = self.at()
            offset = self.after_space()
            next_kind, following = self.at(offset)
            operand = self.after_space(offset + 1)
            operand_kind, operand_text = self.at(operand)
            starts = (
                self.is_symbol(operand)
                or operand_kind == "number"
                or (operand_text != "" and operand_text in OPEN and self.group_is_formula(operand))
            )
            if kind == "mark" and characters in OPEN and self.group_is_formula(0):
                parts.append(self.group())
            elif (
                next_kind == "mark" and (following in OPERATORS or following in PLAIN) and starts
            ) or (
                following == "in"
                and offset
                and (operand_text in OPEN or self.at(operand)[1] in ("S", "A"))
                and starts
            ):
                self.i += offset
                parts.append(self.operator() if following != "in" else "<mo>∈</mo>")
                self.i += following == "in"
                self.i += self.at()[0] == "space"
                parts.append(self.group() if self.at()[1] in OPEN else self.atom())
            elif kind == "space" and self.is_symbol(offset):
                self.i += 1
                parts.append(self.atom())
            elif (
                kind == "space" and following in ("[", "{") and self.group_is_formula(offset)
            ):  # alpha [R + gamma ...]
                self.i += 1
                parts.append(self.group())
            else:
                whole = "".join(parts)
                # Browsers do not fold a formula; a long one is several, one behind the other.
                long = len(re.sub("<[^>]*>", "", whole)) > 32
                return (
                    "<math>"
                    + whole.replace(BREAK, "</math><wbr><math>" if long else "")
                    + "</math>"
                )

    def html(self) -> str:
        """The whole line."""
        parts = []
        while self.at()[0] != "end":
            kind, characters = self.at()
            bracket = (
                kind == "mark"
                and characters in "([{"
                and self.is_symbol(1)
                and self.at(-1)[0] in ("space", "end")
            )
            fraction = kind == "number" and self.at(1)[1] == "/" and self.is_symbol(2)
            if self.is_symbol() or fraction or (bracket and self.group_is_formula(0)):
                parts.append(self.formula())
                continue
            self.i += 1
            if kind == "code":
                parts.append(f"<code>{html.escape(characters.strip('`'))}</code>")
            elif kind == "tag":
                parts.append(f'<a href="#{characters[1:-1]}">{characters}</a>')
            else:
                parts.append(html.escape(characters, quote=False))
        return "".join(parts)


def inline(text: str) -> str:
    """HTML of a line of text, its formulas typeset."""
    return Typesetter(text).html()
