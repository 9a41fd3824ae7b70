"""An executable model of DESIGN.md's rules, as small as it could be made: an oracle for tests, not code or style to copy.

Indexed: row (epoch, index) by arithmetic. Blocked (counted): rows a block at a time; cursors say where.
A row here is (value, key); key = (path, epoch, record, place) is its provenance, the only thing random_map may hash.
Order is scalar and mixes are recomputed here for brevity; the real thing is vectorised.
"""

import numpy as np, hashlib, json, random, functools
from bisect import bisect_right

INF = 1 << 60


def h(*a):
    return int.from_bytes(hashlib.blake2b(repr(a).encode(), digest_size=6).digest(), "little")


@functools.lru_cache(4096)
def perm(n, *key):
    return np.random.default_rng(h(*key)).permutation(n).tolist()


# ---- order: draws of a mix. Tijdeman's rule keeps every prefix within one row of its share, any weights
@functools.lru_cache(256)
def draws(sched, T):
    m = len(sched[0][1])
    cnt = np.zeros(m)
    comp = np.zeros(T, int)
    k = np.zeros(T, int)
    goal = np.zeros(m)
    i = -1
    for t in range(T):
        if i + 1 < len(sched) and sched[i + 1][0] == t:
            i += 1
            w = np.array(sched[i][1], float)
            w /= w.sum()
            e = 1 / max(2 * ((w > 0).sum() - 1), 1)
        goal += w
        s = goal - cnt
        ok = (s >= e - 1e-9) & (w > 0)
        if not ok.any():
            ok = (s == s[w > 0].max()) & (w > 0)
        c = int(np.argmin(np.where(ok, (1 - e - s) / np.where(w > 0, w, 1), np.inf)))
        comp[t] = c
        k[t] = cnt[c]
        cnt[c] += 1
    return comp, k


def table(sched, t):
    T = 256
    while T <= t:
        T *= 2
    return draws(sched, T)


class DS:
    def map(s, f):
        return s.stage("map", f)

    def random_map(s, name, seed=0):
        return s.stage("rmap", (name, seed))

    def filter(s, f):
        return s.stage("filter", f)

    def flat_map(s, f):
        return s.stage("flat", f)

    def pack(s, n):
        return s.stage("pack", n)


def run(stages, rows, at):
    for kind, f in stages:
        if kind == "map":
            rows = [(f(v), k) for v, k in rows]
        elif kind == "rmap":
            rows = [((v, h(f, k) % 9973), k) for v, k in rows]
        elif kind == "filter":
            rows = [r for r in rows if f(r[1])]
        elif kind == "flat":
            rows = [((v, j), k[:3] + (k[3] + (j,),)) for v, k in rows for j in range(f(k))]
        elif (
            kind == "pack"
        ):  # first-fit on lengths 1..f ; key of a packed row = key of its first segment (+ "p")
            bins = []
            for v, k in rows:
                x = 1 + h("len", k[:3]) % f
                b = next((b for b in bins if b[0] >= x), None)
                if b is None:
                    b = [f, []]
                    bins.append(b)
                b[0] -= x
                b[1].append((v, k))
            rows = [(("P", tuple(b[1])), b[1][0][1][:3] + (b[1][0][1][3] + ("p",),)) for b in bins]
    return rows


ONE = {"map", "rmap"}


# ---- indexed datasets: n rows a period, row(e, i, o): e = how often drawn (randomness), o = order epoch (pinned by slice)
class Indexed(DS):
    def stage(s, kind, f):
        return Mapped(s, (kind, f)) if kind in ONE else Chain(s, [(kind, f)])

    def shuffle(s, name="shuffle", window=None, block=None):
        return Shuffle(s, name, window, block)

    def slice(s, a, b, c=1):
        return Slice(s, range(s.n)[a:b:c])

    def repeat(s, k, reshuffle=True):
        return Repeat(s, k, reshuffle)

    @property
    def period(s):
        return s.n


class Src(Indexed):
    def __init__(s, n, path=()):
        s.n, s.path = n, path

    def named(s, x):
        return Src(s.n, (x,) + s.path)

    def row(s, e, i, o):
        return (".".join(s.path) + str(i), (s.path, e, i, ()))


class Mapped(Indexed):
    def __init__(s, c, st):
        s.c, s.st, s.n = c, st, c.n

    period = property(lambda s: s.c.period)

    def named(s, x):
        return Mapped(s.c.named(x), s.st)

    def row(s, e, i, o):
        return run([s.st], [s.c.row(e, i, o)], None)[0]


class Shuffle(Indexed):
    def __init__(s, c, name, window, block, path=()):
        s.c, s.n, s.name, s.w, s.b, s.path = c, c.n, name, window, block, path

    def named(s, x):
        return Shuffle(s.c.named(x), s.name, s.w, s.b, (x,) + s.path)

    def row(s, e, i, o):
        n, key = s.n, (s.path, s.name, o)
        if s.w:
            a = i // s.w * s.w
            j = a + perm(min(s.w, n - a), *key, a)[i - a]
        elif s.b:
            nb = -(-n // s.b)
            p = perm(nb, *key)
            short = n - (nb - 1) * s.b
            q = p.index(nb - 1) * s.b
            j = (
                p[i // s.b] * s.b + i % s.b
                if i < q
                else (nb - 1) * s.b + i - q
                if i < q + short
                else p[(i - short) // s.b + 1] * s.b + (i - short) % s.b
            )
        else:
            j = perm(n, *key)[i]
        return s.c.row(e, j, o)


class Slice(Indexed):
    def __init__(s, c, r):
        s.c, s.r, s.n = c, r, len(r)

    def named(s, x):
        return Slice(s.c.named(x), s.r)

    def row(s, e, i, o):
        return s.c.row(e, s.r[i], 0)


class Repeat(Indexed):
    def __init__(s, c, k, re):
        s.c, s.k, s.re, s.n = c, k, re, c.n * k

    period = property(lambda s: s.c.period)

    def named(s, x):
        return Repeat(s.c.named(x), s.k, s.re)

    def row(s, e, i, o):
        q, i = divmod(i, s.c.n)
        return s.c.row(e * s.k + q, i, o * s.k + q if s.re else o)


class Concat(Indexed):
    def __init__(s, cs, own=True):
        s.cs = [c.named(str(j)) for j, c in enumerate(cs)] if own else cs
        s.ends = np.cumsum([c.n for c in s.cs]).tolist()
        s.n = s.ends[-1]

    def named(s, x):
        return Concat([c.named(x) for c in s.cs], False)

    def row(s, e, i, o):
        j = bisect_right(s.ends, i)
        return s.cs[j].row(e, i - (s.ends[j - 1] if j else 0), o)


class Zip(Indexed):
    def __init__(s, cs, own=True):
        s.cs = [c.named(str(j)) for j, c in enumerate(cs)] if own else cs
        s.n = min(c.n for c in s.cs)

    def named(s, x):
        return Zip([c.named(x) for c in s.cs], False)

    def row(s, e, i, o):
        r = [c.row(e, i, o) for c in s.cs]
        return (tuple(v for v, _ in r), r[0][1])


class Mix(Indexed):  # all children indexed; n rows a period, children go on from period to period
    def __init__(s, cs, sched, n, own=True):
        s.cs = [c.named(str(j)) for j, c in enumerate(cs)] if own else cs
        s.sched, s.n = sched, n

    def named(s, x):
        return Mix([c.named(x) for c in s.cs], s.sched, s.n, False)

    def row(s, e, i, o):
        comp, k = table(s.sched, s.n)
        c = int(comp[i])
        K = int((comp[: s.n] == c).sum())
        d = s.cs[c]
        t = o * K + int(k[i])
        return d.row(t // d.n + (e - o) * (-(-K // d.n) + 1), t % d.n, t // d.n)


# ---- blocked datasets: unit(lane, L, cursor) -> (rows, next cursor) or None at the end
class Blocked(DS):
    pass


class Chain(
    Blocked
):  # count-changing stages over an indexed base: each period is cut into k*L near-equal blocks
    def __init__(s, base, st, S=8):
        s.base, s.st, s.S = base, st, S

    start = [0]

    def stage(s, kind, f):
        return Chain(s.base, s.st + [(kind, f)], s.S)

    def repeat(s, k, re=True):
        return Chain(Repeat(s.base, k, re), s.st, s.S)

    def named(s, x):
        return Chain(s.base.named(x), s.st, s.S)

    @functools.lru_cache(4096)
    def block(s, l, L, q):
        p = s.base.period
        nb = L * -(-p // (L * s.S))
        e, b = divmod(q * L + l, nb)
        a, z = e * p + b * p // nb, e * p + (b + 1) * p // nb
        return run(
            s.st,
            [s.base.row(i // s.base.n, i % s.base.n, i // s.base.n) for i in range(a, z)],
            None,
        ), (e + 1) * p <= s.base.n

    def unit(s, l, L, cur, endless=False):
        rows, ok = s.block(l, L, cur[0])
        return (rows, [cur[0] + 1]) if ok or endless else None


class RowMix(Blocked):  # any child blocked: in every lane deals rows of the children's same lanes
    def __init__(s, cs, sched, stop="never", S=8, st=(), own=True):
        s.cs = [
            (c if isinstance(c, Blocked) else Chain(c, [], S)).named(str(j)) if own else c
            for j, c in enumerate(cs)
        ]
        s.sched, s.stop, s.S, s.st = sched, stop, S, list(st)
        s.start = [0] + [[c.start, 0] for c in s.cs]

    def stage(s, kind, f):
        return RowMix(s.cs, s.sched, s.stop, s.S, s.st + [(kind, f)], False)

    def named(s, x):
        return RowMix([c.named(x) for c in s.cs], s.sched, s.stop, s.S, s.st, False)

    def unit(s, l, L, cur, endless=False):
        if cur is None:
            return None
        j, subs = cur[0], [list(x) for x in cur[1:]]
        comp, _ = table(s.sched, j + s.S)
        out = []
        end = False
        for c in comp[j : j + s.S].tolist():
            r = pull(s.cs[c], l, L, subs[c], endless or s.stop == "never")
            if r is None:
                end = True
                break
            out.append(r)
        if end and not out:
            return None
        return run(s.st, out, None), None if end else [j + s.S] + subs


def pull(
    d, l, L, sub, endless=False
):  # next row of a stream; sub = [cursor of unit, offset] is moved on
    for _ in range(64):
        u = d.unit(l, L, sub[0], endless) if sub[0] is not None else None
        if u is None:
            return None
        if sub[1] < len(u[0]):
            sub[1] += 1
            return u[0][sub[1] - 1]
        sub[0], sub[1] = u[1], 0
    raise RuntimeError("64 empty blocks in a row")


# ---- Loader
class Loader:
    def __init__(s, d, B, L=1, host=0, hosts=1):
        s.d, s.B, s.L, s.ix = d, B, L, isinstance(d, Indexed)
        s.mine = range(host * L // hosts, (host + 1) * L // hosts)
        s.h, s.H = host, hosts
        s.rows = 0
        assert B % hosts == 0 and (s.ix or (L % hosts == 0 and B % L == 0))
        s.at = {l: [d.start, 0] for l in s.mine} if not s.ix else None

    def next(s):
        b = s.B // s.H
        if s.ix:
            a = s.rows + s.h * b
            if s.rows + s.B > s.d.n:
                return None
            out = [s.d.row(i // s.d.n, i % s.d.n, i // s.d.n) for i in range(a, a + b)]
        else:
            at = json.loads(
                json.dumps(
                    s.at,
                )
            )
            at = {int(k): v for k, v in at.items()}
            out = [pull(s.d, l, s.L, at[l]) for l in s.mine for _ in range(s.B // s.L)]
            if any(r is None for r in out):
                return None
            s.at = at
        s.rows += s.B
        return out

    def get(s):
        return json.loads(json.dumps({"rows": s.rows, **({} if s.ix else {"lanes": s.at})}))

    def set(s, st):
        s.rows = st["rows"]
        s.at = None if s.ix else {l: json.loads(json.dumps(st["lanes"][str(l)])) for l in s.mine}
        return s


def merge(ss):
    assert len({s["rows"] for s in ss}) == 1
    return {
        "rows": ss[0]["rows"],
        **(
            {"lanes": {k: v for s in ss for k, v in s["lanes"].items()}} if "lanes" in ss[0] else {}
        ),
    }
