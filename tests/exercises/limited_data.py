"""Answers to the exercises of limited_data: WRONG (what went wrong, code, words of the check that must fire), and RIGHT
ones in another form than the solution."""

_UNIT = "unit = lambda rows: rows / rows.norm(dim=1, keepdim=True)\n"
_MEANS = "means = torch.stack([unit(support)[y == c].mean(0) for c in range(int(y.max()) + 1)])\n"
_SOFT = "soft = torch.nn.functional.one_hot(y, classes).float()\nweight = share.view(-1, 1, 1, 1)\n"
_SURE = "sure, named = probabilities.max(1), probabilities.argmax(1)\n"

WRONG = {
    "draws": [
        ("took one draw", "draws = 1", "too few draws"),
        ("took the most that there is", "draws = 40", "are enough already"),
        ("took the share for the number", "draws = 0.95", "draws must be one of"),
        ("wrote a text", 'draws = "10"', "must be a number, not the text '10'"),
        ("took all numbers that are enough", "draws = [n for n in (1, 3, 5, 10, 20, 40) if right_winner(n) >= 0.95]", "must be a number, not a list"),
        ("left it empty", "draws = None", "has no value yet"),
    ],
    "nearest": [
        ("scaled nothing",
         "means = torch.stack([support[y == c].mean(0) for c in range(int(y.max()) + 1)])\n"
         "return torch.cdist(query, means).argmin(1)",
         "only directions may count"),
        ("averaged before scaling",
         _UNIT + "means = unit(torch.stack([support[y == c].mean(0) for c in range(int(y.max()) + 1)]))\n"
         "return torch.cdist(unit(query), means).argmin(1)",
         "Scale every example before you average"),
        ("did not scale the averages", _UNIT + _MEANS + "return (unit(query) @ means.T).argmax(1)", "scale the averages to length 1 again"),
        ("took the farthest", _UNIT + _MEANS + "return torch.cdist(unit(query), unit(means)).argmax(1)", "the smallest distance"),
        ("took the classes for sorted",
         _UNIT + "means = unit(support).view(int(y.max()) + 1, -1, support.shape[1]).mean(1) if len(y) % (int(y.max()) + 1) == 0 else unit(support)\n"
         "return torch.cdist(unit(query), unit(means)).argmin(1)",
         "need not be sorted by class"),
        ("returned the similarities", _UNIT + _MEANS + "return unit(query) @ unit(means).T", "return one class for each of the 2 queries"),
        ("returned nothing", _UNIT + _MEANS, "returns nothing: end it with `return` and a class for each query"),
    ],
    "mix": [
        ("left the labels hard", _SOFT + "return weight * x + (1 - weight) * x[partner], soft", "the labels are still hard"),
        ("gave the share to the partner",
         _SOFT + "return (1 - weight) * x + weight * x[partner], (1 - share[:, None]) * soft + share[:, None] * soft[partner]",
         "a share of 1 leaves a picture as it is"),
        ("forgot to reshape the share",
         "soft = torch.nn.functional.one_hot(y, classes).float()\nreturn share * x + (1 - share) * x[partner], soft",
         "give share the shape (N, 1, 1, 1)"),
        ("left the labels as numbers", _SOFT + "return weight * x + (1 - weight) * x[partner], share * y + (1 - share) * y[partner]",
         "the soft labels have the shape (3,), not (3, 5)"),
        ("added instead of blending", _SOFT + "return weight * x + x[partner], share[:, None] * soft + soft[partner]",
         "is 0.1, half of 0.4"),
        ("took the same share for all",
         _SOFT + "s = share[2]\nreturn s * x + (1 - s) * x[partner], s * soft + (1 - s) * soft[partner]", "is 0.1, half of 0.4"),
        ("labels that don't add up", _SOFT + "return weight * x + (1 - weight) * x[partner], share[:, None] * soft", "adds up to 1"),
        ("mixed up whose label has which share",
         _SOFT + "return weight * x + (1 - weight) * x[partner], (1 - share[:, None]) * soft + share[:, None] * soft[partner]",
         "the soft labels of the first two should be"),
        ("only the pictures", _SOFT + "return weight * x + (1 - weight) * x[partner]", "return two things"),
    ],
    "pseudo": [
        ("took all", _SURE + "return np.arange(len(sure)), named", "leave out what is below the threshold"),
        ("left out the threshold itself", _SURE + "rows = np.flatnonzero(sure > threshold)\nreturn rows, named[rows]",
         "a row of exactly the threshold counts"),
        ("took no more than `most` in all",
         _SURE + "rows = np.flatnonzero(sure >= threshold)\nrows = np.sort(rows[np.argsort(-sure[rows])][:most])\nreturn rows, named[rows]",
         "`most` holds for each class"),
        ("forgot `most`", _SURE + "rows = np.flatnonzero(sure >= threshold)\nreturn rows, named[rows]", "at most 2 of each class"),
        ("took the first that come",
         _SURE + "classes = range(probabilities.shape[1])\n"
         "rows = np.sort(np.concatenate([np.flatnonzero((named == c) & (sure >= threshold))[:most] for c in classes]))\n"
         "return rows, named[rows]",
         "not the first that come"),
        ("left the rows in the order of the classes",
         _SURE + "rows = np.concatenate([np.flatnonzero((named == c) & (sure >= threshold))[:most] for c in range(probabilities.shape[1])])\n"
         "return rows, named[rows]",
         "in increasing order"),
        ("returned a mask", _SURE + "return sure >= threshold", "return two arrays"),
        ("returned the classes of all", _SURE + "return np.flatnonzero(sure >= threshold), named", "give one class for each row"),
    ],
}

RIGHT = {
    "draws": [("a numpy number", "draws = np.array([n for n in (1, 3, 5, 10, 20, 40) if right_winner(n) >= 0.95]).min()")],
    "nearest": [
        ("the book's own", 'return fewshot.Prototypes("cosine").fit(support, y).predict(query)'),
        ("with numpy",
         "s, q, y = (np.asarray(part) for part in (support, query, y))\n"
         "s, q = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (s, q))\n"
         "means = np.array([s[y == c].sum(0) for c in np.unique(y)])\n"
         "return (q @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)"),
    ],
    "mix": [
        ("lerp and an identity matrix",
         "soft = torch.eye(classes)[y]\n"
         "return torch.lerp(x[partner], x, share[:, None, None, None]), torch.lerp(soft[partner], soft, share[:, None])"),
        ("one by one",
         "soft = torch.nn.functional.one_hot(y, classes).double()\n"
         "pairs = [(s * x[i] + (1 - s) * x[j], s * soft[i] + (1 - s) * soft[j]) for i, (s, j) in enumerate(zip(share, partner))]\n"
         "return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])"),
    ],
    "pseudo": [
        ("lists, from the surest on",
         "counts, taken = {}, []\n"
         "for row in np.argsort(-probabilities.max(1)):\n"
         "    c = int(probabilities[row].argmax())\n"
         "    if probabilities[row].max() >= threshold and counts.get(c, 0) < most:\n"
         "        counts[c] = counts.get(c, 0) + 1\n"
         "        taken.append(int(row))\n"
         "taken.sort()\n"
         "return taken, [int(probabilities[row].argmax()) for row in taken]"),
    ],
}
