# SPDX-License-Identifier: MIT
"""Samples, taken in turn, and what is said of them."""
import random
import statistics
import sys
import time

now = time.perf_counter
SLOW = 240          # seconds: a bound of any one wait


class BenchError(Exception):
    pass


def summary(values):
    v = sorted(values)
    q = statistics.quantiles(v, n=4, method="inclusive") if len(v) > 1 else [v[0]] * 3
    return {"n": len(v), "median": q[1], "q1": q[0], "q3": q[2], "min": v[0], "max": v[-1]}


class Report:
    """What was measured, printed as it comes and kept for --json."""

    def __init__(self):
        self.results = []

    def add(self, item, name, unit, ours, floors, inverse=False):
        """ours: (label, values); floors: list of the same, values in step with ours, round by
        round. A ratio says how much more ours costs; with `inverse` the values are rates, where
        more is better, and the ratio is floor / ours."""
        label, values = ours
        row = {"item": item, "name": name, "unit": unit, "what": label, "ours": summary(values),
               "floors": []}
        print(f"\n{item}: {name}\n  {self.line(label, row['ours'], unit)}")
        for what, floor in floors:
            ratios = [f / o if inverse else o / f for o, f in zip(values, floor) if o > 0 and f > 0]
            r = summary(ratios or [0.0])
            row["floors"].append({"what": what, "value": summary(floor), "ratio": r})
            print(f"  {self.line(what, summary(floor), unit)}"
                  f"   x {r['median']:.2f} ({r['q1']:.2f} .. {r['q3']:.2f})")
        sys.stdout.flush()
        self.results.append(row)

    @staticmethod
    def line(label, s, unit):
        digits = 0 if s["median"] >= 1000 else 1 if s["median"] >= 10 else 3
        return (f"{label:<58.58}{s['median']:>9.{digits}f} {unit:<4} "
                f"({s['q1']:.{digits}f} .. {s['q3']:.{digits}f}) n={s['n']}")


def rounds(n, contestants, until, block=1):
    """Each round runs every contestant, in an order of chance so that none always follows the same
    one, `block` times in a row; the round's value is the block's median. A contestant returns
    seconds, or the value itself. Ends early at `until`, after one round at least. Returns lists by
    name, in step."""
    values = {k: [] for k in contestants}
    order, chance = list(contestants), random.Random(1)
    for i in range(n):
        if i and time.monotonic() > until:
            break
        chance.shuffle(order)
        for k in order:
            values[k].append(statistics.median(sample(contestants[k]) for _ in range(block)))
    return values


def sample(contestant):
    """Once more where the clock went back, as that of a virtual machine with several processors may."""
    for _ in range(5):
        value = contestant()
        if value > 0:
            break
    return value


def timed(fn, *args):
    t = now()
    fn(*args)
    return now() - t


def scaled(values, factor):
    return [v * factor for v in values]
