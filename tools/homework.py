"""Homework from any numbered line: leave it out, and check by value what is handed in.

    python -m tools.homework make dqn.py --lines 6,12,13 --out hw2
    python -m tools.homework check my_dqn.py
    python -m tools.homework rate

docs/homework.md explains it. The reference script runs in small random worlds. Whenever it comes to
a numbered line, the student's statements are carried out on a copy of its variables, with the
random generators as they were, and what they leave behind is compared with what the reference's
own statements leave. Then the reference goes on, so each line is judged alone.
"""

import argparse
import ast
import contextlib
import copy
import csv
import functools
import inspect
import itertools
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import textwrap
import time
import tomllib
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from common.envs import BadInput
from common.language import Language
from tools import slide

# Small sizes, so that a line is reached often; all differ, so that a wrong axis shows.
SMALL = dict(steps=60, episodes=12, gamma=0.9, alpha=0.02, beta=0.1, epsilon=0.3, memory=16)
SMALL |= dict(batch=6, warmup=6, train_every=2, hidden=8, sigma=0.3, tau=0.1, n_envs=3, horizon=5)
SMALL |= dict(epochs=2, workers=1, t_max=4, demonstrations=16, comparisons=16, n_outputs=9)
VARIANTS = (
    dict(n_steps=3),
    dict(clip=0.1),
)  # the second with LITERAL: all that branches is carried out
POINTS = 20  # of a training at which a line is looked at
DRAWS = range(150)  # random draws, of which distributions are compared
SEED = torch.default_generator.manual_seed  # faster than torch.manual_seed
MISTAKES = Path(__file__).with_name("mistakes.toml")


class World(gym.Env):
    """Random states and rewards. Episodes of 2 to 5 steps end in a terminal state, at a time limit,
    or in both at once."""

    def __init__(self, states: gym.Space, actions: gym.Space):
        self.observation_space, self.action_space = states, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.end = self.np_random.integers(2, 6), self.np_random.integers(3)
        return self.draw(), {}

    def draw(self):
        if isinstance(self.observation_space, Discrete):
            return int(self.np_random.integers(self.observation_space.n))
        return self.np_random.normal(size=7).astype(np.float32)

    def step(self, action):
        self.left -= 1
        over = bool(self.left == 0)
        reward = float(np.cos(3 * action).sum() + self.np_random.normal())
        return self.draw(), reward, over and self.end != 0, over and self.end != 1, {}


VECTOR = Box(-np.inf, np.inf, (7,))
WORLDS = (VECTOR, Discrete(4)), (VECTOR, Box(-1, 1, (2,))), (Discrete(5), Discrete(4))

# ------------------------------------------------------------------------- the statements of a line


@dataclass
class Block:
    """The statements of a numbered line; of one that has others nested in it, what stands above
    those.

    Attributes:
        rows: theirs.
        statements: where others are nested, `__reached__(locals())` stands for them.
        loops: whether that is in a `for` loop, which goes on.
        glue: code between them and the next line that does not belong to this one.
        names, assigned: all their names, and those that are assigned.
    """

    tag: str
    rows: range
    statements: list[ast.stmt]
    loops: bool
    glue: list[str]
    compiled: dict = field(default_factory=dict)

    def __post_init__(self):
        names = [n for s in self.statements for n in ast.walk(s) if isinstance(n, ast.Name)]
        self.names = {n.id for n in names}
        self.assigned = {n.id for n in names if isinstance(n.ctx, ast.Store)}
        self.text = "\n".join(map(ast.unparse, self.statements))

    def function(self, names, namespace: dict):
        """The statements as a function of these variables; it returns how they end, and all."""
        if (key := (*names, id(namespace))) not in self.compiled:
            tree = ast.parse(AROUND.format(", ".join(names)))
            body = Returns().visit(ast.Module(copy.deepcopy(self.statements), [])).body
            tree.body[0].body[0].body[:0] = body
            exec(compile(ast.fix_missing_locations(tree), "<student>", "exec"), namespace)
            self.compiled[key] = namespace["__block__"]
        return self.compiled[key]


AROUND = """
def __block__({}):
    for __once__ in (0,):
        return "goes on", locals()
    else:
        return "ends with continue", locals()
    return "ends with break", locals()
"""
REACHED = "if __reached__(locals()):\n    return 'comes to the lines inside', locals()"


class Returns(ast.NodeTransformer):
    """`return x` of the statements says that they return x."""

    def visit_Return(self, node):
        if ast.unparse(node).startswith("return ('comes to the lines inside'"):
            return node
        new = ast.parse("return 'returns', {**locals(), '__result__': 0}").body[0]
        new.value.elts[1].values[1] = node.value or ast.Constant(None)
        return ast.copy_location(new, node)

    def visit_FunctionDef(self, node):
        return node

    def visit_Nonlocal(self, node):
        return ast.copy_location(ast.Pass(), node)

    visit_Lambda = visit_FunctionDef


def live(tree: ast.Module, rows: range) -> set[str]:
    """The names that a function with these rows reads outside of them."""
    around = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.lineno < rows.start]
    names = [n for f in around if f.end_lineno >= rows.start for n in ast.walk(f)]
    own = set()  # of a comprehension
    for n in names:
        targets = [t for g in getattr(n, "generators", ()) for t in ast.walk(g.target)]
        bound = {t.id for t in targets if isinstance(t, ast.Name)}
        own |= {id(x) for x in ast.walk(n) if getattr(x, "id", "") in bound}
    read = [n for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.id for n in read if n.lineno not in rows and id(n) not in own}


def lists(node: ast.AST):
    """The lists of statements in a node: (name, list)."""
    for name in ("body", "orelse", "finalbody"):
        if isinstance(found := getattr(node, name, None), list):
            yield name, found


def above(body: list[ast.stmt], cut: int, marked: list, loop: bool = False) -> list[ast.stmt]:
    """The statements above a row; `__reached__` stands for the first that is left out."""
    kept = [s for s in body if s.lineno < cut]
    for s in kept:
        for name, inner in list(lists(s)):
            setattr(s, name, above(inner, cut, marked, loop or isinstance(s, ast.For)))
    if len(kept) < len(body) and not marked:
        marked.append(loop)
        kept += ast.parse(REACHED).body
    return kept or [ast.Pass()] * bool(body)


def blocks(source: str, reference: dict[str, Block] | None = None, only="") -> dict[str, Block]:
    """Tag -> its block. In a student's file the glue is what the reference has there."""
    found = {}
    code = [row.split("  #")[0].strip() for row in ["", *source.splitlines()]]
    for tag in [tag for tag in slide.parse(source).tags if not only or tag.tag == only]:
        own = [row for row in tag.body if code[row] and code[row][0] != "#"]
        cut, glue, marked = tag.body.stop, [], []
        if reference is None:
            cut = next((row for row in tag.body if not code[row]), cut)
            glue = [code[row] for row in own if row >= cut]
        elif tag.tag in reference and (glue := reference[tag.tag].glue):
            cut = own[-len(glue)] if [code[row] for row in own[-len(glue) :]] == glue else cut
        rows, every = range(tag.body.start, cut), ast.walk(ast.parse(source))
        holders = ([s for s in body if s.lineno in rows] for n in every for _, body in lists(n))
        statements = above(next(filter(None, holders), []), cut, marked)
        found[tag.tag] = Block(tag.tag, rows, statements, True in marked, glue)
    return found


# ------------------------------------------------------------------------------ copies and values


class Linked(torch.autograd.Function):
    """A copy of a tensor with a history: gradients go through that to copies of the parameters."""

    @staticmethod
    def forward(ctx, history, *copies):
        ctx.original, ctx.leaves = history  # in a tuple, so that autograd sees the copies only
        return ctx.original.detach().clone()

    @staticmethod
    def backward(ctx, gradient):
        options = dict(retain_graph=True, allow_unused=True)
        return None, *torch.autograd.grad(ctx.original, ctx.leaves, gradient, **options)


def copied(tensor: torch.Tensor, memo: dict) -> torch.Tensor:
    """Tensor.__deepcopy__, also with a history or a gradient."""
    if id(tensor) in memo:
        return memo[id(tensor)]
    if tensor.grad_fn is not None and memo.get("linked"):
        leaves, nodes = [], [tensor.grad_fn]
        for node in nodes:
            nodes += [n for n, _ in node.next_functions if n is not None and n not in nodes]
            leaves += [node.variable] if hasattr(node, "variable") else []
        with torch.enable_grad():
            new = Linked.apply((tensor, leaves), *[copied(leaf, memo) for leaf in leaves])
    else:
        new = tensor.detach().clone()
        new = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
        new.requires_grad_(tensor.requires_grad and tensor.is_leaf)
        if tensor.is_leaf and tensor.grad is not None:
            new.grad = tensor.grad.clone()
    memo[id(tensor)] = new
    return new


def snapshot(values, linked: bool = True):
    """A deep copy of variables (a dict, or a tuple), in which what belongs together stays so.

    linked: with the histories of tensors.
    """

    def one(value):
        with contextlib.suppress(Exception):
            return copy.deepcopy(value, memo)
        return value

    memo, patch = {"linked": linked}, mock.patch.object
    with patch(torch.Tensor, "__deepcopy__", copied), patch(nn.Parameter, "__deepcopy__", copied):
        if isinstance(values, dict):
            return {name: one(value) for name, value in values.items()}
        return tuple(map(one, values))


SKIPPED = (
    np.random.Generator,
    torch.Generator,
    gym.Space,
    types.FunctionType,
    types.ModuleType,
    type,
)


def frozen(values: dict, flows: bool = True, self=None) -> dict:
    """Variables as a flat dict of numbers and arrays: "y", "D.transitions[3][1]", ...

    A tensor with a history also says to which parameters its gradient flows.
    """
    out, seen, leaves = {}, {}, {}
    for name, value in {**values, "self": self}.items():
        for i, p in enumerate(value.parameters() if isinstance(value, nn.Module) else ()):
            leaves.setdefault(id(p), (f"{name}.parameters[{i}]", p))

    def put(name: str, x) -> None:
        if isinstance(x, SKIPPED):
            return
        if isinstance(x, nn.Parameter) or hasattr(x, "__dict__") and not torch.is_tensor(x):
            if id(x) in seen:
                out[name] = f"the same as {seen[id(x)]}"
                return
            seen[id(x)] = name
        if torch.is_tensor(x):
            out[name] = x.detach().cpu().numpy().copy()
            if x.is_leaf and x.grad is not None:
                out[f"the gradient in {name}"] = x.grad.numpy().copy()
            if flows and x.grad_fn is not None and x.is_floating_point() and leaves:
                weights = torch.linspace(1, 2, x.numel()).view_as(x)
                found, options = list(leaves.values()), dict(retain_graph=True, allow_unused=True)
                with contextlib.suppress(RuntimeError):  # an old tensor, used up
                    gradients = torch.autograd.grad(x, [p for _, p in found], weights, **options)
                    for (leaf, _), g in zip(found, gradients, strict=True):
                        if g is not None and g.any():
                            out[f"the gradient of {name} by {leaf}"] = g.numpy().copy()
        elif isinstance(x, np.ndarray) and x.dtype != object:
            out[name] = x.copy()
        elif isinstance(x, (bool, int, float, str, np.generic, type(None))):
            out[name] = x
        elif isinstance(x, nn.Module):
            for i, p in enumerate([*x.parameters(), *x.buffers()]):
                put(f"{name}.parameters[{i}]", p)
        elif isinstance(x, torch.optim.Optimizer):
            out[name] = type(x).__name__
            for i, group in enumerate(x.param_groups):
                numbers = {k: v for k, v in group.items() if type(v) in (int, float, tuple)}
                put(f"{name}.param_groups[{i}]", numbers)
                put(f"{name}.state[{i}]", [x.state.get(p, {}) for p in group["params"]])
        elif isinstance(x, torch.distributions.Distribution):
            state = torch.get_rng_state()
            SEED(0)
            sample = x.sample()
            torch.set_rng_state(state)
            put(f"a sample of {name}", sample)
            put(f"{name}.log_prob(its sample)", x.log_prob(sample))
        elif isinstance(x, dict):
            for k, v in x.items():
                put(f"{name}[{k!r}]", v)
        elif hasattr(x, "__len__") and hasattr(x, "__iter__"):
            out[f"len({name})"] = len(x)
            for i, v in enumerate(x):
                put(f"{name}[{i}]", v)
        elif hasattr(x, "__dict__"):
            for k, v in vars(x).items():
                put(f"{name}.{k}", v)

    for name, value in values.items():
        put(name, value)
        if np.ndim(out.get(name)):
            out[f"the type of {name}"] = "a tensor" if torch.is_tensor(value) else "an array"
    return out


@dataclass
class Outcome:
    """What a line or a function does.

    Attributes:
        ends: how it ends, or its error.
        values: what it leaves behind, frozen.
        others: further names that a student assigns.
        drew: whether it drew random numbers.
    """

    ends: str = "goes on"
    values: dict = field(default_factory=dict)
    others: dict = field(default_factory=dict)
    drew: bool = False


def number(x) -> str:
    """A number with four digits."""
    x = x.item() if hasattr(x, "item") else x
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def difference(right: Outcome, other: Outcome, before: dict) -> str:
    """In what an outcome differs from the right one; "" if in nothing.

    A value may be wrong by a small part of its change, so that a small step shows, too.
    """
    if right.ends != other.ends:
        return other.ends if ": " in other.ends else f"it {other.ends}, but the line {right.ends}"
    stepped = any(
        f"the gradient in {name}" in right.values and not np.array_equal(before[name], value)
        for name, value in right.values.items()
        if name in before
    )
    grads = [v for k, v in right.values.items() if k.startswith("the gradient in ")]
    noise = 1e-4 * max((np.abs(g).max(initial=0) for g in grads), default=0)
    for name in [*right.values, *(n for n in other.values if n not in right.values)]:
        gradient = name.startswith("the gradient in ")
        if gradient and stepped or name not in right.values and not name.startswith("the grad"):
            continue
        if name not in other.values:
            same = [n for n, v in other.others.items() if close(right.values[name], v, None)]
            if same:
                return f"you assign `{same[0]}`, the task asks for `{name}`"
            return f"{name} is missing" if "grad" not in name else f"{name} should not be 0"
        if name not in right.values:
            return f"there is {name.replace('the', 'a', 1)}, where none should be"
        a, b = right.values[name], other.values[name]
        key = f"the gradient in {name}"
        if key in right.values and np.shape(a) == np.shape(b):  # Adam makes steps of noise, too
            g = np.abs([right.values[key], other.values.get(key, right.values[key])]).max(0)
            b = np.where((g > 0) & (g < noise), a, b)
        if not close(a, b, before.get(name)):
            if np.shape(a) != np.shape(b):
                return f"{name} has the shape {np.shape(b)}, should have {np.shape(a)}"
            if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
                return f"{name} is {b}, should be {a}"
            if np.shape(a) and np.asarray(a).dtype.kind != np.asarray(b).dtype.kind:
                return f"{name} is {np.asarray(b).dtype}, should be {np.asarray(a).dtype}"
            wrong = np.abs(np.asarray(a, float) - np.asarray(b, float))
            at = np.unravel_index(np.argmax(np.where(np.isnan(wrong), np.inf, wrong)), wrong.shape)
            place = f"[{', '.join(map(str, at))}]" if at else ""
            a, b, c = (
                np.asarray(x)[at] if np.shape(x) == wrong.shape else None
                for x in (a, b, before.get(name))
            )
            if c is not None and "." in name and number(a) == number(b):
                return f"{name}{place} changes by {number(b - c)}, should by {number(a - c)}"
            return f"{name}{place} is {number(b)}, should be {number(a)}"
    return ""


def close(a, b, before) -> bool:
    """Whether two values agree."""
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return type(a) is type(b) and a == b
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.ndim and x.dtype.kind != y.dtype.kind:
        return False
    if np.array_equal(x, y):
        return True
    x, y = x.astype(float), y.astype(float)
    moved = x - np.asarray(before) if np.shape(before) == x.shape and before is not None else x
    size = lambda z: np.abs(z[np.isfinite(z)]).max(initial=0)
    return np.allclose(x, y, rtol=0, atol=1e-3 * size(moved) + 1e-6 * size(x), equal_nan=True)


# ----------------------------------------------------------------------------- running a reference


class Reference:
    """A script that is right: its lines, and its pieces (functions and classes).

    Attributes:
        mistakes: the known ones in it.
    """

    def __init__(self, path: Path):
        self.path, self.source, self.spaces = path, slide.read(path).source, []
        self.tree, self.blocks = ast.parse(self.source), blocks(self.source)
        self.pieces = {n.name: n for n in self.tree.body if isinstance(n, DEFINITIONS)}
        table = tomllib.loads(MISTAKES.read_text("utf-8"))
        here = table.get(likely(self.source), [])
        self.mistakes = [m for m in here if self.source.count(m["old"]) == 1]

    def module(self, tags=(), probe=None) -> dict:
        """The script's names. probe(tag, variables) is called where it comes to one of the tags."""
        tree = ast.parse(self.source)
        every = [(node, body) for node in ast.walk(tree) for _, body in lists(node)]
        for block in map(self.blocks.get, tags):
            call = ast.parse(f"__probe__({block.tag!r}, locals())").body[0]
            inside = lambda s, rows=block.rows: getattr(s, "lineno", 0) in rows
            found = [body for node, body in every if any(map(inside, body)) and not inside(node)]
            s = next(filter(inside, found[0]))
            if isinstance(s, ast.While) and "__reached__" in block.text:  # at each test
                s.test = ast.BoolOp(ast.Or(), [call.value, s.test])
            else:
                found[0].insert(found[0].index(s), call)
        names = {"__name__": "reference", "__probe__": probe}
        exec(compile(ast.fix_missing_locations(tree), str(self.path), "exec"), names)
        self.spaces.append(names)
        return names

    def train(self, names: dict, seed: int, begin=lambda: None) -> None:
        """Run it in all worlds that it takes, in two variants, with two seeds.

        begin() is called before each of them.
        """
        every = [f for space in self.spaces for f in space.values()]
        functions = [f for f in every if isinstance(f, types.FunctionType) and f.__kwdefaults__]
        errors, fit = [], False
        first = next(iter(inspect.signature(names["train"]).parameters))
        for (states, actions), variant, run in itertools.product(WORLDS, range(2), range(2)):
            options = (names.get("LITERAL", {}) if variant else {}) | SMALL | VARIANTS[variant]
            options |= dict(steps=300) if first == "language" else {}  # words
            for f in functions:
                own = f.__dict__.setdefault("defaults", f.__kwdefaults__)
                f.__kwdefaults__ = {k: options.get(k, v) for k, v in own.items()}
            make = functools.partial(World, states, actions)
            given = Language() if first == "language" else make if "make" in first else make()
            begin()
            try:
                names["train"](given, seed=seed + run)
                fit = True
            except FloatingPointError:
                pass
            except Exception as error:  # a world that it does not take
                errors.append(f"{type(error).__name__}: {error}")
            if first == "language" and run:
                return
        if not fit:
            raise BadInput(f"{self.path} runs in no small world: {errors[0]}")


DEFINITIONS = ast.FunctionDef, ast.ClassDef


class Point:
    """The reference is about to carry out a line, with these variables."""

    def __init__(self, block: Block, values: dict, watched: set[str]):
        watched = watched | {k for k, v in values.items() if isinstance(v, LINKED)}
        self.block, self.values, self.watched = block, values, sorted(watched)
        self.states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self.before = frozen(self.seen(values, block), False)

    def watch(self, values: dict, block: Block) -> dict:
        """What statements may change: what they name; and networks and optimisers as one."""
        named = block.names | self.block.names
        history = lambda v: torch.is_tensor(v) and v.grad_fn is not None
        linked = {k for k, v in values.items() if isinstance(v, LINKED) or history(v)}
        named |= linked if named & linked else set()
        return {name: values[name] for name in named if name in values}

    def seen(self, values: dict, block: Block) -> dict:
        """What of these is compared."""
        found = self.watch(values, block)
        return {name: found[name] for name in self.watched if name in found}

    def restore(self) -> None:
        """Put the random generators back."""
        torch.set_rng_state(self.states[0])
        np.random.set_state(self.states[1])
        random.setstate(self.states[2])

    def run(self, block: Block, names: dict, fresh=False, draw: int | None = None) -> Outcome:
        """Carry out statements on a copy.

        Args:
            fresh: without the gradients of the last step.
            draw: with other random numbers, this seed's.
        """
        values = self.values | snapshot(self.watch(self.values, block))
        generators = [v for v in values.values() if isinstance(v, np.random.Generator)]
        rounds, out = [], {}

        def reached(now: dict) -> bool:
            rounds.append(0)
            here = {k: v for k, v in self.seen(now, block).items() if k in self.block.assigned}
            out.update({f"{k} (round {len(rounds)})": v for k, v in frozen(here).items()})
            return not block.loops or len(rounds) >= (12 if draw is None else 2)

        self.restore()
        if draw is not None:
            for seed in (SEED, np.random.seed, random.seed):
                seed(draw)
            for value in values.values():
                value.action_space.seed(draw) if isinstance(value, gym.Env) else None
            for generator in generators:
                generator.bit_generator.state = np.random.default_rng(draw).bit_generator.state
        if fresh:
            for value in values.values():
                value.zero_grad() if isinstance(value, nn.Module) else None
        old = [repr(g.bit_generator.state) for g in generators]
        names["__reached__"] = reached
        try:
            ends, after = block.function(values, names)(**values)
            watched = self.seen(after, block)
            watched |= {"what is returned": after["__result__"]} if "__result__" in after else {}
            outcome = Outcome(ends, out | frozen(watched))
            new = {k: after[k] for k in block.assigned - self.block.names if k in after}
            outcome.others = frozen(new, False) if draw is None else {}
        except BaseException as error:
            outcome = Outcome(failed(error))
        drew = not torch.equal(self.states[0], torch.get_rng_state())
        outcome.drew = drew or old != [repr(g.bit_generator.state) for g in generators]
        self.restore()
        return outcome


LINKED = nn.Module, torch.optim.Optimizer, list


def failed(error: BaseException) -> str:
    """An error of the student's code in one line."""
    rows = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<student>"
    ]
    where = f" (line {rows[-1]})" if rows else ""
    says = (str(error) or "no message").splitlines()[0]
    return f"{type(error).__name__}: {says}{where}"


def alike(right: list[Outcome], other: list[Outcome]) -> bool:
    """Whether outcomes of many draws have the same distribution, value by value."""
    every = {}
    for outcome in right:  # -9e9: there is no such value in some of them
        numbers = {k: v for k, v in outcome.values.items() if not isinstance(v, (str, type(None)))}
        every |= {k: np.full(np.shape(v), -9e9) for k, v in numbers.items()}
    flat = lambda o: np.concatenate([np.ravel(o.values.get(k, v)) for k, v in every.items()])
    x, y = [flat(o).astype(float) for o in right], [flat(o).astype(float) for o in other]
    if len({len(row) for row in x + y}) > 1 or {o.ends for o in other} - {o.ends for o in right}:
        return False
    n, x, y = len(x), np.round(x, 5).T, np.round(y, 5).T
    for a, b in zip(x, y, strict=True):
        for these, those in ((a, b), (b, a)):  # each common value of one is a value of the other
            values, counts = np.unique(these, return_counts=True)
            if not np.isclose(values[counts > n / 20][:, None], those, rtol=1e-3).any(1).all():
                return False
        at = np.concatenate([a, b])
        below = lambda z, at=at: np.searchsorted(np.sort(z), at, "right") / n
        if np.abs(below(a) - below(b)).max() > 2.3 * np.sqrt(2 / n):  # Kolmogorov and Smirnov
            return False
    return True


@dataclass
class Seen:
    """One time that a line or a piece was looked at: what each candidate did there."""

    where: str
    before: dict
    right: Outcome
    others: list[Outcome]
    inputs: dict = field(default_factory=dict)
    alike: dict[int, bool] = field(default_factory=dict)


def look(reference: Reference, at: str, candidates: list, seed: int, draws=True) -> list[Seen]:
    """Carry out candidates wherever the reference comes to a line, or on the data of a piece."""
    found = []
    if at not in reference.blocks:
        for sequence in calls(reference, at, seed):
            right, *others = [replay(reference, at, sequence, c) for c in [None, *candidates]]
            found.append(Seen("", {}, right, others))
        return found
    block, busy, count = reference.blocks[at], [], [0]
    watched = live(reference.tree, block.rows)

    def probe(tag: str, values: dict) -> None:
        count[0] += 1
        most = POINTS if draws else POINTS // 3
        if busy or count[0] > most and count[0] % 5 or count[0] > 3 * most:
            return
        busy.append(1)
        point = Point(block, values, watched)
        start = time.process_time()
        right = point.run(block, names)
        fast = draws and time.process_time() - start < 0.05
        if ": " in right.ends:  # training diverges here
            return busy.clear()
        seen = Seen("", point.before, right, [point.run(*c) for c in candidates])
        step = values.get("step", values.get("t"))
        seen.where = f" at step {step}" if isinstance(step, int) else ""
        read = block.names - block.assigned
        seen.inputs = frozen({k: values[k] for k in sorted(read) if k in values}, False)
        for i, c in enumerate(candidates):
            if fast and right.drew and difference(right, seen.others[i], point.before):
                seen.alike[i] = all(s.alike.get(i, True) for s in found)
                if seen.alike[i] and sum(i in s.alike for s in found) in (0, 3, 6, 10, 15):
                    ways = (block, names), c[:2]  # not at each point: it is slow
                    many = [[point.run(*way, draw=r) for r in DRAWS] for way in ways]
                    seen.alike[i] = alike(*many)
        found.append(seen)
        busy.clear()

    names = reference.module([at], probe)
    reference.train(names, seed, lambda: count.__setitem__(0, 0))
    return found


def calls(reference: Reference, piece: str, seed: int) -> list[list[tuple]]:
    """How the reference calls a function, or the methods of each object of a class.

    Each call is (method or "", arguments, keywords, weights of the network before it).
    """
    names, sequences, current, busy = reference.module(), [], {}, []
    target = names[piece]

    def recorder(function, method: str):
        @functools.wraps(function)
        def wrapper(*args, **keywords):
            if busy:
                return function(*args, **keywords)
            if method in ("", "__init__"):
                current[id(args[0]) if method else ""] = sequence = []
                sequences.append(sequence)
            sequence = current.get(id(args[0]) if method else "", [])
            weights = None
            if isinstance(args[0], nn.Module) and method == "forward":
                weights = [p.detach().clone() for p in args[0].parameters()]
            if len(sequence) < 40:
                given = snapshot((args[bool(method) :], keywords), False)
                sequence.append((method, *given, weights))
            busy.append(1)
            try:
                return function(*args, **keywords)
            finally:
                busy.pop()

        return wrapper

    if isinstance(target, type):
        own = {name for c in target.__mro__ if c.__module__ == "reference" for name in vars(c)}
        own |= {"forward"} if issubclass(target, nn.Module) else set()
        for name in own:
            if isinstance(function := getattr(target, name), types.FunctionType):
                setattr(target, name, recorder(function, name))
    else:
        names[piece] = recorder(target, "")
    reference.train(names, seed)
    spread = max(1, len(sequences) // 24)
    return sequences[::spread]


def replay(reference: Reference, piece: str, sequence: list[tuple], target) -> Outcome:
    """Make the same calls to a student's function or class; None: to the reference's own."""
    target = target or reference.module()[piece]
    inside = {id(n) for n in ast.walk(reference.pieces[piece])}
    read = {
        n.attr
        for n in ast.walk(reference.tree)
        if isinstance(n, ast.Attribute) and id(n) not in inside
    }
    me, out = None, {}
    try:
        for i, (method, args, keywords, weights) in enumerate(sequence):
            (args, keywords), call = snapshot((args, keywords)), target
            SEED(i)
            if method == "__init__":
                me = target(*args, **keywords)
                continue
            if weights:
                for p, w in zip(me.parameters(), weights, strict=True):
                    p.data.copy_(w)
            call = getattr(me, method) if method else target
            name = f"{method or piece}()" + f" in call {i}" * bool(method)
            result = call(*args, **keywords)
            values = {name: result} | {f"argument {k} of {name}": x for k, x in enumerate(args)}
            public = {
                a: getattr(me, a) for a in sorted(read) if method and a[0] != "_" and hasattr(me, a)
            }
            public = {f"{a} after {name}": v for a, v in public.items() if not callable(v)}
            out |= frozen({**values, **public}, self=me)
    except BaseException as error:
        return Outcome(failed(error), out)
    return Outcome("goes on", out)


# ------------------------------------------------------------------------------------- the judging


def definitions(source: str, own: dict, but: str = "") -> dict:
    """A student's module, with the reference's pieces, so that each line and piece is judged alone.

    Only imports, definitions and constants are carried out.

    Args:
        own: the reference's pieces.
        but: the one to take from the student.
    """
    names = {"__name__": "student"} | own
    for node in ast.parse(source).body:
        called = {getattr(n.func, "id", "") for n in ast.walk(node) if isinstance(n, ast.Call)}
        constant = isinstance(node, (ast.Assign, ast.AnnAssign)) and not called & names.keys()
        wanted = isinstance(node, (ast.Import, ast.ImportFrom)) or constant
        if wanted or isinstance(node, DEFINITIONS) and (node.name == but or node.name not in own):
            with contextlib.suppress(Exception):
                exec(compile(ast.Module([node], []), "<student>", "exec"), names)
    return names


def candidates(reference: Reference, source: str, at: str) -> list:
    """How a student's line or piece may be carried out: if one way is right, it is."""
    own = {k: v for k, v in reference.module().items() if k in reference.pieces}
    alone, together = definitions(source, own, at), definitions(source, {})
    reference.spaces += [alone, together]
    if at in reference.pieces:
        return [names[at] for names in (alone, together) if at in names]
    block = blocks(source, reference.blocks, at)[at]
    ways = [(block, alone)]
    theirs = {n.name: n for n in ast.parse(source).body if isinstance(n, DEFINITIONS)}
    changed = [n for n in block.names & own.keys() if not same(theirs.get(n), reference.pieces[n])]
    if changed:  # with the student's own functions
        ways.append((block, together))
    if "zero_grad" in block.text:  # it may stand after the step, too
        ways.append((*ways[0], True))
    return ways


def mistaken(reference: Reference, at: str) -> tuple[list[dict], list]:
    """The known mistakes in a line or a piece, and candidates that make them."""
    known, names = [m for m in reference.mistakes if m["at"] == at], reference.module()
    changed = [reference.source.replace(m["old"], m["new"]) for m in known]
    if at in reference.pieces:
        return known, [definitions(source, names, at)[at] for source in changed]
    return known, [(blocks(source, reference.blocks, at)[at], names) for source in changed]


def same(a: ast.AST | None, b: ast.AST) -> bool:
    """Whether two pieces of code are the same."""
    return a is not None and ast.dump(a) == ast.dump(b)


def agrees(seen: list[Seen], i: int) -> bool:
    """Whether a candidate agrees with the reference, or draws other numbers in the same way."""
    wrong = [s for s in seen if difference(s.right, s.others[i], s.before)]
    tried = [s.alike[i] for s in seen if i in s.alike]
    return not wrong or all(s.right.drew for s in wrong) and bool(tried) and all(tried)


def named(seen: list[Seen], i: int, others: range) -> int | None:
    """The first of the other candidates that does the same everywhere."""
    equal = lambda s, k: not difference(s.others[k], s.others[i], s.before)
    return next((k for k in others if all(equal(s, k) for s in seen)), None)


def judge(reference: Reference, source: str, at: str, seed: int = 0) -> str:
    """ "" if a line or a piece of a student's file is right, or else what is wrong."""
    if at in reference.pieces:
        theirs = [n for n in ast.parse(source).body if getattr(n, "name", "") == at]
        if not theirs:
            return "it is missing"
        text, equal = ast.unparse(theirs[-1]), same(theirs[-1], reference.pieces[at])
    else:
        theirs = blocks(source, reference.blocks, at).get(at)
        if not theirs or not theirs.statements:
            return f"the tag `# [{at}]` is missing" if not theirs else "there is no code under it"
        text, equal = theirs.text, theirs.text == reference.blocks[at].text
    if equal:
        return ""
    if "raise NotImplementedError" in text or " ...:" in text:
        return "not done yet"
    mine = candidates(reference, source, at)
    seen = look(reference, at, mine, seed)
    if not seen:
        return "the checks never come here: see for yourself"
    if any(agrees(seen, i) for i in range(len(mine))):
        return ""
    first = next(s for s in seen if difference(s.right, s.others[0], s.before))
    says = difference(first.right, first.others[0], first.before)
    says = f"differs{first.where}: {says}{context(says, first)}"
    known, wrong = mistaken(reference, at)
    again = look(reference, at, [mine[0], *wrong], seed, False)
    if any(difference(s.right, s.others[0], s.before) for s in again):
        k = named(again, 0, range(1, len(wrong) + 1))
        says += f"\nas if: {known[k - 1]['sentence']}" if k else ""
    return says


def whole(reference: Reference, path: Path, seed: int) -> str:
    """Run a whole file beside the reference: the first difference, after which all else differs."""
    logs = []
    for script in (reference, Reference(path)):
        log = []

        def probe(tag: str, values: dict, log=log) -> None:
            numbers = {k: v for k, v in values.items() if not isinstance(v, (gym.Env, list))}
            draws = [
                v.bit_generator.state for v in values.values() if isinstance(v, np.random.Generator)
            ]
            drawn = torch.get_rng_state().sum().item(), repr(draws)
            log.append((tag, drawn, frozen(numbers, False) if len(log) < 600 else {}))

        script.train(
            script.module([t for t in script.blocks if t in reference.blocks], probe), seed
        )
        logs.append(log)
    last = "the start"
    for (tag, drawn, right), (other, drew, values) in zip(*logs, strict=False):
        if tag != other:
            return f"after [{last}] comes [{other}], should come [{tag}]"
        both = {k: v for k, v in values.items() if k in right}
        says = difference(Outcome(values={k: right[k] for k in both}), Outcome(values=both), {})
        if drawn != drew:
            return (
                f"after [{last}]: other random numbers from here; values are no longer comparable"
            )
        if says:
            return f"after [{last}]: {says}"
        last = tag
    return "" if len(logs[0]) == len(logs[1]) else f"it ends after [{last}]"


def context(says: str, seen: Seen) -> str:
    """The values at the same place that the line reads."""
    if not (match := re.match(r"(\w+)\[(\d+)\] is ", says)):
        return ""
    size, i = np.shape(seen.right.values[match[1]]), int(match[2])
    rows = {k: v[i] for k, v in seen.inputs.items() if np.shape(v) == size}
    return f" ({', '.join(f'{k}[{i}] = {number(v)}' for k, v in rows.items())})" if rows else ""


def likely(source: str) -> str:
    """The script whose tags a file has."""
    tags = {n: slide.read(slide.ROOT / f"{n}.py").tags for n in slide.SCRIPTS}
    count = {n: sum(f"# [{t.tag}] {t.text[:40]}" in source for t in tags[n]) for n in tags}
    return max(count, key=count.get) if any(count.values()) else ""


# ------------------------------------------------------------------------------- files of students


def source_of(path: Path) -> str:
    """A file's code, of a notebook too."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        text = "\n\n".join("".join(c["source"]) for c in cells)
    return re.sub(r"(?m)^[%!].*$", "", text)  # a notebook's own commands


def work(sender, folder: str, path: Path, reference: Path, ats: list[str], seed: int) -> None:
    """A process of its own: judge lines of a student's file, and send each word at once."""
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    os.chdir(folder)
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    known = Reference(reference)
    for at in ats:
        try:
            one = at == "whole"
            sender.send(
                whole(known, path, seed) if one else judge(known, source_of(path), at, seed)
            )
        except SyntaxError as error:
            sender.send(f"not Python: line {error.lineno}: {error.msg}")
        except BaseException as error:
            sender.send(failed(error))


def rows(path: Path, reference: Path, ats: list[str], seed: int, timeout: float):
    """(line, what is wrong or "") of a student's file; what hangs or crashes costs its line."""
    left, folder = list(ats), tempfile.TemporaryDirectory()
    while left:
        receiver, sender = multiprocessing.Pipe(False)
        given = sender, folder.name, path, reference, left, seed
        process = multiprocessing.Process(target=work, args=given)
        process.daemon = True
        process.start()
        sender.close()
        said = "no answer in time: an endless loop?"
        with contextlib.suppress(EOFError):
            while left and receiver.poll(timeout):
                said = "the process ended: a crash, or too little memory"
                says = receiver.recv()
                yield left.pop(0), says
                said = "no answer in time: an endless loop?"
        process.kill()
        process.join()
        if left:
            yield left.pop(0), said


MEMORY = 4 * 2**30  # bytes that a student's file may take


def check(flags) -> int:
    """Print what is right and wrong in files; returns the exit status."""
    table, tests = [], []
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # loads what every process needs
    for path in flags.files:
        given = flags.against or slide.ROOT / f"{likely(path.read_text('utf-8', 'replace'))}.py"
        if not given.is_file():
            raise BadInput(f"{path}: which script is it? say --against dqn.py")
        reference, failing = Reference(given), set()
        ats = ["whole"] if flags.whole else flags.lines or list(reference.blocks)
        if not flags.lines and not flags.whole:  # and the pieces that the student has changed
            with contextlib.suppress(SyntaxError):
                theirs = [n for n in ast.parse(source_of(path)).body if isinstance(n, DEFINITIONS)]
                pieces = {n.name: reference.pieces.get(n.name) for n in theirs}
                tagged = {tag.function for tag in slide.read(given).tags} | {"main"}
                ats += [
                    n.name
                    for n in theirs
                    if pieces[n.name] and n.name not in tagged and not same(n, pieces[n.name])
                ]
        for at, says in rows(path.resolve(), given.resolve(), ats, flags.seed, flags.timeout):
            block = reference.blocks.get(at)
            given_right = failing & block.names if block and not says else set()
            failing |= block.assigned if block and says else set()
            table.append((str(path), at, int(not says), says.replace("\n", "; ")))
            tests.append(
                dict(name=f"{path.name} [{at}]", score=int(not says), max_score=1, output=says)
            )
            page = f"docs/html/{given.stem}.html#{at}" if "as if" in says else ""
            right = "ok" + f", given the right {', '.join(sorted(given_right))}" * bool(given_right)
            print(
                f"{f'[{at}]' if block else at:5}", (says or right).replace("\n", "\n      "), page
            )
    if flags.csv:
        with flags.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "line", "points", "says"), *table])
    if flags.gradescope:
        flags.gradescope.write_text(json.dumps(dict(tests=tests), indent=1), "utf-8")
    return int(not all(points for _, _, points, _ in table))


# ---------------------------------------------------------------------------------- assignments


def place(reference: Reference, at: str) -> range:
    """The rows of a line or a piece."""
    node = reference.pieces.get(at)
    return range(node.lineno, node.end_lineno + 1) if node else reference.blocks[at].rows


def put(reference: Reference, texts: dict[str, str], hints: bool = True) -> str:
    """The script with other code for lines or pieces; without hints: and no explanations there."""
    lines = reference.source.splitlines()
    edits = [(place(reference, at), text) for at, text in texts.items()]
    for tag in slide.parse(reference.source).tags:
        if tag.tag in texts and tag.notes and not hints:
            edits.append((range(tag.body.start - tag.notes, tag.body.start), ""))
    for rows, text in sorted(edits, key=lambda edit: -edit[0].start):
        space = re.match(" *", lines[rows.start - 1])[0]
        lines[rows.start - 1 : rows.stop - 1] = textwrap.indent(text, space).splitlines()
    return "\n".join(lines) + "\n"


def blank(statements: list[ast.stmt], error: str) -> list[str]:
    """What stands in their place: one raise; of a line with others nested in it `while ...:`."""
    lines = []
    for s in statements:
        if not ast.unparse(s).startswith("if __reached__"):
            if "__reached__" not in ast.unparse(s):
                lines += [error] if error not in lines else []
                continue
            setattr(s, "iter" if isinstance(s, ast.For) else "test", ast.Constant(...))
            lines.append(ast.unparse(s).splitlines()[0])
            lines += ["    " + line for line in blank(s.body, error)] or ["    pass"]
    return lines


def task(reference: Reference, at: str) -> str:
    """What a student finds in place of a line or a piece."""
    if at in reference.pieces:
        tree = ast.parse(ast.unparse(reference.pieces[at]))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                says = f"raise NotImplementedError('{node.name}()')"
                node.body = node.body[: bool(ast.get_docstring(node))] + ast.parse(says).body
        return ast.unparse(tree)
    tag = next(tag for tag in slide.parse(reference.source).tags if tag.tag == at)
    block, notes = reference.blocks[at], []
    seen = look(reference, at, [], 0)[:9]
    for name in sorted(block.assigned & live(reference.tree, block.rows)):
        values = [v for s in seen for k, v in s.right.values.items() if k.split(" (")[0] == name]
        shapes = [np.shape(v) for v in values]
        kind = getattr(values[0], "dtype", type(values[0]).__name__) if values else ""
        alike = shapes and len({*map(len, shapes)}) == 1
        sizes = (
            [SIZES.get(d[0], d[0]) if len({*d}) == 1 else "T" for d in zip(*shapes, strict=True)]
            if alike
            else []
        )
        shape = f" ({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})" * bool(sizes)
        notes.append(f"# to assign: {name}" + f", {kind}{shape}" * bool(kind))
    says = textwrap.shorten(f"[{at}] {tag.text}", 60, placeholder=" ...")
    error = f"raise NotImplementedError({json.dumps(says)})"
    return "\n".join(notes + blank(copy.deepcopy(block.statements), error))


SIZES = {
    v: k for k, v in SMALL.items() if k in ("batch", "n_envs", "horizon", "n_outputs", "hidden")
}
SIZES |= {7: "n_features", 4: "n_actions"}


def notebook(source: str, ats: list[str], script: str) -> str:
    """The same as a notebook for nbgrader: a cell for each piece, and one a line that checks it."""
    import nbformat
    from nbformat import v4

    tree, lines = ast.parse(source), source.splitlines()
    cells, start = (
        [v4.new_markdown_cell(f"```\n{ast.get_docstring(tree)}\n```")],
        tree.body[0].end_lineno,
    )
    kind = dict(grade=False, solution=False, locked=False, schema_version=3, task=False)
    for node in tree.body[1:]:
        if isinstance(node, DEFINITIONS) and node.name != "main":
            cells.append(v4.new_code_cell("\n".join(lines[start : node.end_lineno]).strip()))
            start = node.end_lineno
            if "raise NotImplementedError" in cells[-1].source or "### BEGIN" in cells[-1].source:
                cells[-1].metadata["nbgrader"] = kind | dict(solution=True, grade_id=node.name)
    for at in ats:
        says = f"from tools import homework\n\nhomework.grade(In, {at!r}, {script!r})"
        options = dict(grade=True, locked=True, points=1, grade_id=f"check-{at}")
        cells.append(v4.new_code_cell(says, metadata=dict(nbgrader=kind | options)))
    return nbformat.writes(v4.new_notebook(cells=cells))


def grade(cells: list[str], at: str, script: str) -> None:
    """A notebook's check of a line: an error that says what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "student.py")
        path.write_text("\n\n".join(cells), "utf-8")
        ((_, says),) = rows(path, slide.ROOT / script, [at], 0, 60)
    assert not says, says


def make(flags) -> int:
    """Write an assignment."""
    reference = Reference(flags.script)
    unknown = [at for at in flags.lines if at not in reference.pieces | reference.blocks]
    if unknown:
        raise BadInput(f"{flags.script} has no line or piece {', '.join(unknown)}")
    for at in flags.lines:
        found = rate(reference, at)
        print(
            f"[{at}] the check catches {sum(c for _, c, _ in found)} of {len(found)} known mistakes"
        )
    texts = {at: task(reference, at) for at in flags.lines}
    source, answers = put(reference, texts, flags.hints), {}
    for at in flags.lines:  # a line with others nested in it stays as it is
        rows = place(reference, at)
        own = textwrap.dedent(
            "\n".join(reference.source.splitlines()[rows.start - 1 : rows.stop - 1])
        )
        if at in reference.pieces or "__reached__" not in reference.blocks[at].text:
            answers[at] = f"### BEGIN SOLUTION\n{own}\n### END SOLUTION"
    solved = put(reference, answers, flags.hints)
    out = flags.out
    (out / "source" / out.name).mkdir(parents=True, exist_ok=True)
    (out / flags.script.name).write_text(source, "utf-8")
    name = f"{flags.script.stem}.ipynb"
    (out / name).write_text(notebook(source, flags.lines, flags.script.name), "utf-8")
    (out / "source" / out.name / name).write_text(
        notebook(solved, flags.lines, flags.script.name), "utf-8"
    )
    return 0


def rate(reference: Reference, at: str, seed: int = 0) -> list[tuple[dict, bool, bool]]:
    """The known mistakes in a line or a piece: (mistake, caught, named)."""
    known, wrong = mistaken(reference, at)
    seen = look(reference, at, wrong, seed)
    caught = [not agrees(seen, i) for i in range(len(known))]
    first = lambda i: known[named(seen, i, range(len(known)))]["sentence"]
    return [(m, caught[i], caught[i] and first(i) == m["sentence"]) for i, m in enumerate(known)]


def rates(flags) -> int:
    """Print the error rates: of the known mistakes, and of right answers written otherwise."""
    total, passed, answers = np.zeros(3, int), 0, 0
    for script in flags.scripts or slide.SCRIPTS:
        reference = Reference(slide.ROOT / f"{script}.py")
        for at in dict.fromkeys(m["at"] for m in reference.mistakes):
            for mistake, caught, named_ in rate(reference, at):
                total += 1, caught, named_
                if not named_:
                    what = "not named" if caught else "missed"
                    print(f"{script} {at}: {what}: {mistake['sentence']}")
        for answer in tomllib.loads(ANSWERS.read_text("utf-8")).get(script, []):
            says = judge(reference, put(reference, {answer["at"]: answer["code"]}), answer["at"])
            answers, passed = answers + 1, passed + (not says)
            if says:
                print(f"{script} {answer['at']}: a right answer fails: {says}")
        print(
            f"{script}: so far {total[1]} of {total[0]} mistakes are caught, {total[2]} named; "
            f"{passed} of {answers} right answers pass",
            flush=True,
        )
    return 0


ANSWERS = slide.ROOT / "tests/right_answers.toml"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.homework")
    commands = parser.add_subparsers(required=True)
    names = lambda text: text.split(",")
    command = commands.add_parser("make", help="write an assignment")
    command.set_defaults(run=make)
    command.add_argument("script", type=Path)
    command.add_argument("--lines", type=names, required=True, help="6,12,gae: to leave out")
    command.add_argument("--out", type=Path, required=True, help="the folder to write to")
    command.add_argument("--hints", action="store_true", help="keep the explanations")
    command = commands.add_parser("check", help="check files of students, line by line")
    command.set_defaults(run=check)
    command.add_argument("files", type=Path, nargs="+")
    command.add_argument("--against", type=Path, help="the script that is right")
    command.add_argument("--lines", type=names, help="6,12,gae: only these")
    command.add_argument("--whole", action="store_true", help="run the whole file beside it")
    command.add_argument("--csv", type=Path, help="a table: file, line, points, what is wrong")
    command.add_argument("--gradescope", type=Path, help="the same as Gradescope's results.json")
    command.add_argument("--seed", type=int, default=0, help="another one for hidden checks")
    command.add_argument("--timeout", type=float, default=60, help="seconds for a line")
    command = commands.add_parser("rate", help="how many known mistakes are caught and named")
    command.set_defaults(run=rates)
    command.add_argument("scripts", nargs="*", choices=[[], *slide.SCRIPTS])
    flags = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        return flags.run(flags)
    except (BadInput, slide.SlideError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
