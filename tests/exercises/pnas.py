"""Answers to the exercises of pnas: WRONG (what went wrong, code, words of the check that must fire), and RIGHT ones in
another form than the solution."""

_LOOP = ('trained = {cell: evaluate(cell) for cell in first}\n'
         'beam = list(first)\n'
         'for _ in range(levels):\n'
         '    FIT\n'
         '    children = EXPAND\n'
         '    best = np.argsort(SIGN np.asarray(predictor.predict(children)), kind="stable")[:keep]\n'
         '    beam = [children[i] for i in best]\n'
         '    trained |= {cell: evaluate(cell) for cell in beam}\n'
         'return trained')


def _loop(fit="predictor.fit(list(trained), list(trained.values()))", expand="expand(beam)", sign="-"):
    return _LOOP.replace("FIT", fit).replace("EXPAND", expand).replace("SIGN ", sign)


def _expand(sources="[-1, *range(len(cell.blocks))]", pairs="combinations_with_replacement(branches, 2)",
            cell="Cell((*cell.blocks, block)).canonical()", found="set()", add="found.add", end="list(found)"):
    return (f'found = {found}\n'
            'for cell in cells:\n'
            f'    sources = {sources}\n'
            '    branches = [(source, operation) for source in sources for operation in operations]\n'
            f'    for block in {pairs}:\n'
            f'        {add}({cell})\n'
            f'return {end}')


WRONG = {
    "budget": [
        ("took a hundred for one in a hundred", "budget = min(10, round(1 / share))", "too few"),
        ("one step further than needed", "tried = (10, 25, 50, 100, 150, 200, 300)\n"
         "budget = tried[min(6, next(i for i, n in enumerate(tried) if chance(n) >= 0.5) - 1)]", "too few"),
        ("the exact number, not one of the budgets", "budget = next(n for n in range(1, 400) if chance(n) >= 0.9)", "budget must be one of"),
        ("wrote the chance", "budget = max(chance(n) for n in (100, 200))", "budget must be one of"),
        ("a text", 'budget = "300"', "budget must be a number, not the text '300'"),
    ],
    "expand": [
        ("no canonical form", _expand(cell="Cell((*cell.blocks, block[::-1]))"), "canonical form"),
        ("kept what stands twice", _expand(found="[]", add="found.append", pairs="__import__('itertools').product(branches, repeat=2)"),
         "stand there twice"),
        ("the new block sees the cell before only", _expand(sources="[-1]"), "the block that is there already"),
        ("no two branches alike", _expand(pairs="__import__('itertools').combinations(branches, 2)"), "two alike count too"),
        ("took the cell before the last, too", _expand(sources="[-2, -1, *range(len(cell.blocks))]"), "never h2"),
        ("the block alone, without the cell", _expand(sources="[-1]", cell="Cell((block,)).canonical()"), "have two blocks"),
        ("the same for each cell, but not for all of them",
         "found = []\nfor cell in cells:\n"
         "    branches = [(s, o) for s in [-1, *range(len(cell.blocks))] for o in operations]\n"
         "    found += {Cell((*cell.blocks, b)).canonical() for b in combinations_with_replacement(branches, 2)}\nreturn found",
         "a child in common"),
    ],
    "ratio": [
        ("averaged the ratios", "never = np.isinf(np.concatenate([a, b])).mean()\n"
         "return (np.minimum(a, limit) / np.minimum(b, limit)).mean(), never", "average the logarithms"),
        ("the wrong way round", "never = np.isinf(np.concatenate([a, b])).mean()\n"
         "return np.exp(np.mean(np.log(np.minimum(b, limit) / np.minimum(a, limit)))), never", "you give b / a"),
        ("left infinity in", "return np.exp(np.mean(np.log(a / b))), np.isinf(np.concatenate([a, b])).mean()", "not as infinity"),
        ("dropped those that never arrived", "fine = np.isfinite(a) & np.isfinite(b)\n"
         "return np.exp(np.mean(np.log(a[fine] / b[fine]))) if fine.any() else 1.0, np.isinf(np.concatenate([a, b])).mean()", "you dropped the pair"),
        ("counted the runs of a only", "return np.exp(np.mean(np.log(np.minimum(a, limit) / np.minimum(b, limit)))), np.isinf(a).mean()",
         "count the runs of both"),
        ("the ratio only", "return np.exp(np.mean(np.log(np.minimum(a, limit) / np.minimum(b, limit))))", "return two numbers"),
    ],
    "search": [
        ("the lowest guesses", _loop(sign="+"), "the other way round"),
        ("expands all that is trained", _loop(expand="[c for c in expand(list(trained)) if c not in trained]"), "only the beam"),
        ("fits on the last level", _loop(fit="predictor.fit(beam, [trained[c] for c in beam])"), "fit on all cells trained so far"),
        ("fits once", _loop(fit="predictor.fit(list(trained), list(trained.values())) if len(trained) == len(first) else None"),
         "fitted anew for each level"),
        ("trains all children to be sure", _loop().replace("[:keep]", ""), "train only the best 5 children"),
        ("trains what it has trained", _loop().replace("return trained", "return {cell: evaluate(cell) for cell in trained}"), "a cell twice"),
        ("returns the last beam", _loop().replace("return trained", "return {cell: trained[cell] for cell in beam}"), "return every trained cell"),
        ("returns a list", _loop().replace("return trained", "return list(trained)"), "return a dict"),
    ],
}

RIGHT = {
    "expand": [
        ("a dict for the order, and its keys", _expand(found="{}", add="found.setdefault", end="found.keys()")),
    ],
    "search": [
        ("sorted by a key", _loop().replace('best = np.argsort(-np.asarray(predictor.predict(children)), kind="stable")[:keep]',
                                            "guess = predictor.predict(children)\n"
                                            "    best = sorted(range(len(children)), key=lambda i: -guess[i])[:keep]")),
    ],
    "ratio": [
        ("with where", "w = lambda x: np.where(np.isinf(x), limit, x)\nn = np.isinf(a).sum() + np.isinf(b).sum()\n"
         "return np.exp(np.mean(np.log(w(a) / w(b)))), n / (len(a) + len(b))"),
    ],
}
