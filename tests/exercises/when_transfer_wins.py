"""Answers to the exercises of when_transfer_wins: WRONG (what went wrong, code, words of the check that must fire), and
RIGHT ones in another form than the solution."""

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
        ("all zero", 'by_hand = {"A": 0, "B": 0, "C": 0}', "they do not end it"),
        ("all one", 'by_hand = {"A": 1, "B": 1, "C": 1}', "A is not 1: multiply the share of the 4 bits"),
        ("took the target of C for new",
         'by_hand = {"A": bits / 8, "B": (1 + old / 10) / 2, "C": (4 - bits) / 8}', "so the last factor is 1, not 1/2"),
        ("B from nowhere", 'by_hand = {"A": bits / 8, "B": 0.9, "C": (4 - bits) / 4}', "B is not 0.9: multiply"),
        ("percentages", 'by_hand = {"A": 12.5, "B": 70, "C": 75}', "lies between 0 and 1"),
        ("texts", 'by_hand = {"A": "1/8", "B": "7/10", "C": "3/4"}', "A in by_hand must be a number, not the text '1/8'"),
        ("a list", "by_hand = [0.125, 0.7, 0.75]", "must be a dict with the three keys"),
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
        ("stopped at the first hole after a gain",
         'compared, last = evaluation.compare(frame, a, b), None\n'
         'for row in compared.itertuples():\n'
         '    if row.low > 0:\n'
         '        last = row.labels\n'
         '    elif last is not None:\n'
         '        break\n'
         'return last',
         "whatever lies before it"),
        ("asked for these two methods whatever is given",
         'compared = evaluation.compare(frame, "transfer", "scratch")\n'
         'won = compared.loc[compared["low"] > 0, "labels"]\n'
         'return int(won.max()) if len(won) else None',
         "take the methods a and b that are given"),
        ("forgot the table without a gain",
         'compared = evaluation.compare(frame, a, b)\n'
         'return int(compared.loc[compared["low"] > 0, "labels"].max())',
         "return None"),
        ("returned a table",
         'compared = evaluation.compare(frame, a, b)\n'
         'return compared.loc[compared["low"] > 0, "labels"]',
         "must be one number, not an array"),
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
        ("called only what lies beyond the margin a gain",
         'found = metrics.paired_interval(a, b)\n'
         'if -margin <= found.low and found.high <= margin:\n'
         '    return "the same"\n'
         'return "gain" if found.low > margin else "loss" if found.high < -margin else "not shown"',
         "the margin decides on 'the same' only"),
        ("called only what lies beyond the margin a loss",
         'found = metrics.paired_interval(a, b)\n'
         'if -margin <= found.low and found.high <= margin:\n'
         '    return "the same"\n'
         'return "gain" if found.low > 0 else "loss" if found.high < -margin else "not shown"',
         "the same with the sign turned is a loss"),
        ("looked at the mean", 'return "gain" if (a - b).mean() > margin else "loss" if (a - b).mean() < -margin else "the same"', "not 'the same'"),
        ("looked at one side of the margin",
         'found = metrics.paired_interval(a, b)\n'
         'if found.high <= margin:\n'
         '    return "the same"\n'
         'return "gain" if found.low > 0 else "loss" if found.high < 0 else "not shown"',
         "less on every draw is a loss"),
        ("returned the interval", "return metrics.paired_interval(a, b)", "one of the four words"),
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
        ("returned nothing", 'frame = evaluation.learning_curve(sources, [labels], seeds, draw=draw)', "returns nothing"),
        ("took the worst",
         'frame = evaluation.learning_curve(sources, [labels], seeds, draw=draw)\n'
         'return frame[frame["method"] != "parrot"].groupby("method")["accuracy"].min().idxmin()',
         "not on the mean of all"),
    ],
}

RIGHT = {
    "by-hand": [("fractions, and numpy's numbers",
                 'from fractions import Fraction\n'
                 'by_hand = {"C": np.float32((4 - bits) / 4), "A": Fraction(bits, 8), "B": np.float64((10 + old) / 20)}')],
    "last-win": [
        ("a float",
         'compared = evaluation.compare(frame, a, b)\n'
         'won = compared[(compared["shown"] == "+")]["labels"]\n'
         'return None if won.empty else float(won.iloc[-1])'),
        ("budget by budget, from above",
         'from tlutils.evaluation import difference\n'
         'budgets = sorted(frame["labels"].unique(), reverse=True)\n'
         'return next((n for n in budgets if difference(frame, a, b, n).low > 0), None)')],
    "verdict": [
        ("scipy's interval, and the words from numpy",
         'from scipy import stats\n'
         'd = np.asarray(a) - np.asarray(b)\n'
         'low, high = stats.t.interval(0.95, len(d) - 1, loc=d.mean(), scale=stats.sem(d))\n'
         'if max(-low, high) <= margin:\n'
         '    return np.str_("the same")\n'
         'return np.array(["loss", "not shown", "gain"])[1 + (low > 0) - (high < 0)]')],
    "choose": [
        ("the book's own learning curve",
         'from tlutils.evaluation import learning_curve\n'
         'return learning_curve(sources, [labels], seeds, draw=draw).groupby("method")["accuracy"].mean().idxmax()'),
        ("each draw taken once, for all",
         'total = dict.fromkeys(sources, 0)\n'
         'for seed in seeds:\n'
         '    x, y, x_test, y_test = draw(labels, seed)\n'
         '    for name in sources:\n'
         '        total[name] += (sources[name](x, y, x_test, seed) == y_test).mean()\n'
         'return sorted(total, key=total.get)[-1]')],
}
