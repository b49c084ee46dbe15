"""Answers to the exercises of optimisation: WRONG (what went wrong, code, words of the check that must fire), and
RIGHT ones in another form than the solution."""

WRONG = {
    "rate": [
        ("took the smallest, which surely keeps enough", "rate = min(rates)", "look for the largest"),
        ("took the largest of all", "rate = max(rates)", "the rate is too high"),
        ("a rate between the candidates", "rate = 2e-3", "rate must be one of"),
        ("wrote the share kept", "rate = max(kept(r) for r in rates)", "rate must be one of"),
        ("a text", 'rate = "0.001"', "rate must be a number, not the text '0.001'"),
    ],
    "layers": [
        ("the lowest stage learns fastest",
         'groups = [{"params": list(head.parameters()), "lr": lr}]\n'
         'for depth, stage in enumerate(backbone.stages):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr * decay ** depth})\n'
         'return groups', "your lowest stage has the highest rate"),
        ("counted the head as the first level",
         'groups = [{"params": list(head.parameters()), "lr": lr}]\n'
         'for depth, stage in enumerate(reversed(list(backbone.stages)), 1):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr * decay ** depth})\n'
         'return groups', "the top stage learns at lr"),
        ("multiplied by the depth",
         'groups = [{"params": list(head.parameters()), "lr": lr}]\n'
         'for depth, stage in enumerate(reversed(list(backbone.stages))):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr - 0.02 * depth})\n'
         'return groups', "your rates fall by equal amounts"),
        ("divided instead of multiplying",
         'groups = [{"params": list(head.parameters()), "lr": lr}]\n'
         'for depth, stage in enumerate(reversed(list(backbone.stages))):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr / decay ** depth})\n'
         'return groups', "bottom first, learn at 0.0125"),
        ("forgot the head",
         'return [{"params": list(stage.parameters()), "lr": lr * decay ** depth}\n'
         '        for depth, stage in enumerate(reversed(list(backbone.stages)))]', "the head is in no group"),
        ("put everything into every group",
         'return [{"params": [*backbone.parameters(), *head.parameters()], "lr": lr * decay ** depth} for depth in range(4)]',
         "a parameter stands in two groups"),
        ("built the optimizer",
         'import torch\nreturn torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=lr)', "return a list of dicts"),
        ("wrote the decay of the example into the code",
         'groups = [{"params": list(head.parameters()), "lr": lr}]\n'
         'for depth, stage in enumerate(reversed(list(backbone.stages))):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr * 0.5 ** depth})\n'
         'return groups', "use both arguments"),
        ("a small rate for the head too",
         'groups = [{"params": list(head.parameters()), "lr": lr * decay}]\n'
         'for depth, stage in enumerate(reversed(list(backbone.stages))):\n'
         '    groups.append({"params": list(stage.parameters()), "lr": lr * decay ** depth})\n'
         'return groups', "the head learns at lr"),
    ],
    "stop": [
        ("counted from nought",
         'best = 0\nfor look, loss in enumerate(losses):\n    if loss < losses[best]:\n        best = look\n'
         '    elif look - best >= patience:\n        return best, look\nreturn best, len(losses) - 1', "counted from 1"),
        ("waited for losses that rise in a row",
         'best, waited = 1, 0\nfor look in range(2, len(losses) + 1):\n'
         '    if losses[look - 1] < losses[best - 1]:\n        best = look\n'
         '    waited = waited + 1 if losses[look - 1] > losses[look - 2] else 0\n'
         '    if waited == patience:\n        return best, look\nreturn best, len(losses)', "three looks without a"),
        ("took the best of all losses",
         'best = 1\nfor look, loss in enumerate(losses, 1):\n    if loss < losses[best - 1]:\n        best = look\n'
         '    elif look - best >= patience:\n        return losses.index(min(losses)) + 1, look\nreturn best, len(losses)',
         "look 6 was never made"),
        ("counted a tie as new",
         'best = 1\nfor look, loss in enumerate(losses, 1):\n    if loss <= losses[best - 1]:\n        best = look\n'
         '    elif look - best >= patience:\n        return best, look\nreturn best, len(losses)', "a tie is no new lowest"),
        ("never started the count anew",
         'best, waited = 1, 0\nfor look, loss in enumerate(losses, 1):\n    if loss < losses[best - 1]:\n        best = look\n'
         '    elif look > 1:\n        waited += 1\n    if waited == patience:\n        return best, look\nreturn best, len(losses)',
         "starts the"),
        ("one look too many",
         'best = 1\nfor look, loss in enumerate(losses, 1):\n    if loss < losses[best - 1]:\n        best = look\n'
         '    elif look - best > patience:\n        return best, look\nreturn best, len(losses)', "it ends after"),
        ("only the best", "return losses.index(min(losses)) + 1", "return two numbers"),
    ],
    "fair": [
        ("one rate for both, the best of b",
         'rate = float(dev[dev["method"] == b].groupby("rate")["accuracy"].mean().idxmax())\n'
         'pick = lambda m: test[(test["method"] == m) & (test["rate"] == rate)].sort_values("seed")["accuracy"].to_numpy()\n'
         'return rate, rate, metrics.paired_interval(pick(a), pick(b))', "that suits plain"),
        ("chose the rates in test",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(test[test["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(test[(test["method"] == m) & (test["rate"] == rates[-1])].sort_values("seed")["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(*scores)', "test must not choose"),
        ("reported the runs that chose",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(dev[dev["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(dev[(dev["method"] == m) & (dev["rate"] == rates[-1])].sort_values("seed")["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(*scores)', "that is the difference in dev"),
        ("paired the rows as they came",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(dev[dev["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(test[(test["method"] == m) & (test["rate"] == rates[-1])]["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(*scores)', "sort both methods by seed"),
        ("b minus a",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(dev[dev["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(test[(test["method"] == m) & (test["rate"] == rates[-1])].sort_values("seed")["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(scores[1], scores[0])', "a minus b"),
        ("took all rates of test",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(dev[dev["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(test[test["method"] == m].sort_values(["rate", "seed"])["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(*scores)', "difference below zero"),
        ("took the rate of the best single run",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    mine = dev[dev["method"] == m]\n'
         '    rates.append(float(mine.loc[mine["accuracy"].idxmax(), "rate"]))\n'
         '    scores.append(test[(test["method"] == m) & (test["rate"] == rates[-1])].sort_values("seed")["accuracy"].to_numpy())\n'
         'return *rates, metrics.paired_interval(*scores)', "one lucky run"),
        ("only the mean",
         'rates, scores = [], []\nfor m in (a, b):\n'
         '    rates.append(float(dev[dev["method"] == m].groupby("rate")["accuracy"].mean().idxmax()))\n'
         '    scores.append(test[(test["method"] == m) & (test["rate"] == rates[-1])]["accuracy"].mean())\n'
         'return *rates, scores[0] - scores[1]', "what metrics.paired_interval returns"),
    ],
}

RIGHT = {
    "rate": [("a loop", "for r in rates:\n    if kept(r) >= 0.8:\n        rate = r")],
    "layers": [("from the bottom up",
                'stages = list(backbone.stages)\n'
                'return [{"params": list(s.parameters()), "lr": lr * decay ** (len(stages) - 1 - i)} for i, s in enumerate(stages)] + [\n'
                '    {"params": list(head.parameters()), "lr": lr}]')],
    "stop": [("a counter",
              'best, waited = 1, 0\nfor look in range(2, len(losses) + 1):\n'
              '    best, waited = (look, 0) if losses[look - 1] < losses[best - 1] else (best, waited + 1)\n'
              '    if waited == patience:\n        return best, look\nreturn best, len(losses)')],
    "fair": [("a pivot table",
              'best = dev.groupby(["method", "rate"])["accuracy"].mean()\n'
              'rates = [best[m].idxmax() for m in (a, b)]\n'
              'table = test.pivot(index="seed", columns=["method", "rate"], values="accuracy")\n'
              'return rates[0], rates[1], metrics.paired_interval(table[a, rates[0]], table[b, rates[1]])')],
}
