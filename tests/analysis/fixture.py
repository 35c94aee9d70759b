"""Writes the fixtures beside it: seeded random ticks, and what reference.py says of them.

    python3 fixture.py        writes quiet.csv, busy.csv, sessions.csv

Each begins with lines of '#': how it was made, and the settings. What follows is what `pilothouse analyse` reads, and
three more columns: log evidence for FAIL and PASS with nine decimals, and the reference's verdict. Rows lie between half
a second and a minute apart; there are seconds without requests, bursts that hit both, and a candidate that turns bad."""
import random
from pathlib import Path
from reference import Verdict

FIXTURES = {  # name: (seed, rows, settings, requests of stable and candidate a second)
    "quiet": (1, 220, dict(delta=0.005, alpha=0.01, D=1.0, histS=(0, 0)), (4, 0.7)),
    "busy": (2, 220, dict(delta=0.01, alpha=0.001, D=1.0, histS=(5000, 40)), (300, 30)),
    "sessions": (3, 220, dict(delta=0.02, alpha=0.05, D=3.5, histS=(300, 3)), (60, 9)),
}

for name, (seed, rows, settings, (stable, candidate)) in FIXTURES.items():
    r = random.Random(seed)
    v = Verdict(**settings)
    h = settings["histS"]
    lines = ["# Made by fixture.py from reference.py, both beside it; settings of this one:",
             "# tolerance=%s alpha=%s divisor=%s history=%s,%s" % (settings["delta"], settings["alpha"], settings["D"], *h),
             "t,stable_n,stable_bad,candidate_n,candidate_bad,log_fail,log_pass,verdict"]
    t = 0.0
    for row in range(rows):
        dt = r.choice([1.0] * 12 + [0.5, 2.0, 5.25, 60.0])
        t += dt
        base, extra = 0.01, 0.15 if 0.7 * rows < row < 0.9 * rows else 0.0
        if row % 50 in (30, 31):                   # both suffer, the candidate more
            base, extra = 0.6, 0.3
        def draw(rate, p):
            n = r.randrange(0, int(2 * rate * min(dt, 6.0)) + 2)
            return n, sum(r.random() < p for _ in range(n))
        s, c = draw(stable, base), draw(candidate, base + extra)
        if row % 23 == 7:
            c = (0, 0)
        if row % 29 == 11:
            s = (0, 0)
        verdict = v.tick(t, *s, *c)
        lines.append("%s,%d,%d,%d,%d,%.9f,%.9f,%s" % (t, *s, *c, v.logE, v.logP, verdict))
    Path(__file__).with_name(name + ".csv").write_text("\n".join(lines) + "\n")
