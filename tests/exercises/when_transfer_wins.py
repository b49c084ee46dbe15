"""Typical wrong answers to the exercises of when_transfer_wins: (what went wrong, code, words of the check that must fire)."""

WRONG = {
    "by-hand": [
        ("took no account of the shapes that the source never saw",
         'by_hand = {"A": bits / 4, "B": (1 + old / 10) / 2, "C": (4 - bits) / 4}',
         "seen none of the target's shapes"),
        ("took the share of shapes seen for the similarity",
         'by_hand = {"A": bits / 8, "B": old / 10, "C": (4 - bits) / 4}',
         "is the share of shapes seen"),
        ("counted the bits on shape for a target that asks for colour",
         'by_hand = {"A": bits / 8, "B": (1 + old / 10) / 2, "C": bits / 4}',
         "count the bits spent on colour"),
    ],
    "last-win": [
        ("took the mean for the interval",
         'compared = evaluation.compare(frame, a, b)\n'
         'return int(compared.loc[compared["mean"] > 0, "labels"].max())',
         "that gain is not shown"),
        ("took any difference that is shown, losses too",
         'compared = evaluation.compare(frame, a, b)\n'
         'return int(compared.loc[compared["shown"] != "not shown", "labels"].max())',
         "look at the sign"),
        ("stopped at the first budget without a gain",
         'compared, last = evaluation.compare(frame, a, b), None\n'
         'for row in compared.itertuples():\n'
         '    if row.low <= 0:\n'
         '        break\n'
         '    last = row.labels\n'
         'return last',
         "although a gain is shown at two budgets"),
    ],
    "verdict": [
        ("called every interval with zero in it 'the same'",
         'found = metrics.paired_interval(a, b)\n'
         'return "gain" if found.low > 0 else "loss" if found.high < 0 else "the same"',
         "not 'the same'"),
        ("did not pair the runs",
         'one, two = metrics.t_interval(a), metrics.t_interval(b)\n'
         'return "gain" if one.low > two.high else "loss" if one.high < two.low else "not shown"',
         "pair the runs"),
        ("never said 'the same'",
         'found = metrics.paired_interval(a, b)\n'
         'return "gain" if found.low > 0 else "loss" if found.high < 0 else "not shown"',
         "inside a margin of two"),
    ],
    "choose": [
        ("judged on one draw",
         'x, y, x_test, y_test = draw(labels, seeds[0])\n'
         'scores = {name: metrics.accuracy(method(x, y, x_test, seeds[0]), y_test) for name, method in sources.items()}\n'
         'return max(scores, key=scores.get)',
         "use every seed"),
        ("judged on the training pictures",
         'means = {}\n'
         'for name, method in sources.items():\n'
         '    drawn = [(draw(labels, seed), seed) for seed in seeds]\n'
         '    means[name] = np.mean([metrics.accuracy(method(x, y, x, seed), y) for (x, y, *_), seed in drawn])\n'
         'return max(means, key=means.get)',
         "judge on x_test and y_test"),
        ("returned the score",
         'frame = evaluation.learning_curve(sources, [labels], seeds, draw=draw)\n'
         'return frame.groupby("method")["accuracy"].mean().max()',
         "return the name of a source"),
        ("wrote the seeds down as numbers",
         'frame = evaluation.learning_curve(sources, [5], range(3), draw=draw)\n'
         'return frame.groupby("method")["accuracy"].mean().idxmax()',
         "the seeds that were given"),
    ],
}
