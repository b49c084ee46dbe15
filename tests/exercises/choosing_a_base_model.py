"""Answers to the exercises of choosing_a_base_model: WRONG (what went wrong, code, words of the check that must fire),
and RIGHT ones in another form than the solution."""

_SCORES = ('scores = {{}}\n'
           'for name, features in candidates.items():\n'
           '    right = np.zeros(len(labels))\n'
           '    for train, held in folds(labels):\n'
           '        probe = finetune.linear_probe(features[train], labels[train])\n'
           '        right[{rows}] = probe.predict(features[{rows}]) == labels[{rows}]\n'
           '    scores[name] = right.mean()\n'
           'best = max(scores.values())\n')
_HELD = _SCORES.format(rows="held")

WRONG = {
    "candidates": [
        ("took the largest", "candidates = 32", "candidates are enough already"),
        ("took the smallest", "candidates = 2", "you need more candidates"),
        ("none of the choices", "candidates = 10", "must be one of"),
        ("a text", 'candidates = "8"', "must be a number, not the text"),
    ],
    "nce": [
        ("gave the entropy",
         'z, y = np.asarray(source_labels), np.asarray(labels)\n'
         'total = 0.0\n'
         'for called in np.unique(z):\n'
         '    shares = np.unique(y[z == called], return_counts=True)[1] / (z == called).sum()\n'
         '    total -= (z == called).mean() * (shares * np.log(shares)).sum()\n'
         'return total',
         "mind the sign"),
        ("took bits for nats",
         'z, y = np.asarray(source_labels), np.asarray(labels)\n'
         'total = 0.0\n'
         'for called in np.unique(z):\n'
         '    shares = np.unique(y[z == called], return_counts=True)[1] / (z == called).sum()\n'
         '    total += (z == called).mean() * (shares * np.log2(shares)).sum()\n'
         'return total',
         "natural logarithm"),
        ("conditioned on the label",
         'y, z = np.asarray(source_labels), np.asarray(labels)\n'
         'total = 0.0\n'
         'for called in np.unique(z):\n'
         '    shares = np.unique(y[z == called], return_counts=True)[1] / (z == called).sum()\n'
         '    total += (z == called).mean() * (shares * np.log(shares)).sum()\n'
         'return total',
         "nothing is left"),
        ("did not weight the answers",
         'z, y = np.asarray(source_labels), np.asarray(labels)\n'
         'total = 0.0\n'
         'for called in np.unique(z):\n'
         '    shares = np.unique(y[z == called], return_counts=True)[1] / (z == called).sum()\n'
         '    total += (shares * np.log(shares)).sum()\n'
         'return total',
         "weight every answer z"),
        ("took the logarithm of zero",
         'z, y = np.asarray(source_labels), np.asarray(labels)\n'
         'joint = np.zeros((y.max() + 1, z.max() + 1))\n'
         'np.add.at(joint, (y, z), 1 / len(z))\n'
         'with np.errstate(all="ignore"):\n'
         '    return (joint * np.log(joint / joint.sum(axis=0))).sum()',
         "0 times log 0"),
        ("returned nothing", 'z = np.asarray(source_labels)', "returns nothing"),
    ],
    "leep": [
        ("took hard answers",
         'theta, labels = np.asarray(theta), np.asarray(labels)\n'
         'theta = np.eye(theta.shape[1])[theta.argmax(axis=1)]\n'
         'joint = np.stack([theta[labels == y].sum(axis=0) for y in range(labels.max() + 1)]) / len(labels)\n'
         'given = joint / np.maximum(joint.sum(axis=0), 1e-12)\n'
         'return np.log((given[labels] * theta).sum(axis=1)).mean()',
         "use the probabilities"),
        ("took the logarithm inside the sum",
         'theta, labels = np.asarray(theta), np.asarray(labels)\n'
         'joint = np.stack([theta[labels == y].sum(axis=0) for y in range(labels.max() + 1)]) / len(labels)\n'
         'given = joint / np.maximum(joint.sum(axis=0), 1e-12)\n'
         'return (np.log(np.maximum(given, 1e-12))[labels] * theta).sum(axis=1).mean()',
         "sum over z first"),
        ("forgot to divide by P(z)",
         'theta, labels = np.asarray(theta), np.asarray(labels)\n'
         'joint = np.stack([theta[labels == y].mean(axis=0) for y in range(labels.max() + 1)])\n'
         'return np.log((joint[labels] * theta).sum(axis=1)).mean()',
         "divide P(y, z) by P(z)"),
        ("divided by a class that is never named",
         'theta, labels = np.asarray(theta), np.asarray(labels)\n'
         'joint = np.stack([theta[labels == y].sum(axis=0) for y in range(labels.max() + 1)]) / len(labels)\n'
         'with np.errstate(all="ignore"):\n'
         '    return np.log((joint / joint.sum(axis=0))[labels] * theta).sum(axis=1).mean()',
         "don't divide by it"),
        ("gave the loss",
         'theta, labels = np.asarray(theta), np.asarray(labels)\n'
         'joint = np.stack([theta[labels == y].sum(axis=0) for y in range(labels.max() + 1)]) / len(labels)\n'
         'given = joint / np.maximum(joint.sum(axis=0), 1e-12)\n'
         'return -np.log((given[labels] * theta).sum(axis=1)).mean()',
         "mind the sign"),
    ],
    "choose": [
        ("took the best without regard to size", _HELD + 'return max(scores, key=scores.get)', "take the one with fewer parameters"),
        ("took the smallest without regard to the score", 'return min(sizes, key=sizes.get)', "within one standard error may win"),
        ("judged on the training rows",
         _SCORES.format(rows="train") + 'error = np.sqrt(best * (1 - best) / len(labels))\n'
         'return min([n for n in scores if scores[n] >= best - error], key=sizes.get)',
         "score it on the held-out rows"),
        ("allowed a standard deviation instead of a standard error",
         _HELD + 'error = np.sqrt(best * (1 - best))\n'
         'return min([n for n in scores if scores[n] >= best - error], key=sizes.get)',
         "more than one standard error apart"),
        ("returned the score", _HELD + 'return best', "return the name of a candidate"),
    ],
}

RIGHT = {
    "candidates": [("counted down", "candidates = float(min(n for n in (32, 16, 8, 4, 2) if best_of(n, 60) >= 0.88))")],
    "nce": [("through the joint table",
             'z, y = np.asarray(source_labels), np.asarray(labels)\n'
             'joint = np.zeros((y.max() + 1, z.max() + 1))\n'
             'np.add.at(joint, (y, z), 1 / len(z))\n'
             'given = joint / np.maximum(joint.sum(axis=0), 1e-12)\n'
             'return (joint * np.log(np.where(joint > 0, given, 1))).sum()')],
    "leep": [("with matrices",
              'theta, one = np.asarray(theta), np.eye(labels.max() + 1)[labels]\n'
              'joint = one.T @ theta / len(theta)\n'
              'total = joint.sum(axis=0)\n'
              'given = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)\n'
              'return np.mean(np.log(np.einsum("nz,yz,ny->n", theta, given, one)))')],
    "choose": [("scikit-learn's cross-validation",
                'from sklearn.model_selection import cross_val_predict\n'
                'from sklearn.base import clone\n'
                'scores = {n: (cross_val_predict(clone(finetune.linear_probe(f, labels)), f, labels, cv=list(folds(labels))) == labels).mean()\n'
                '          for n, f in candidates.items()}\n'
                'top = max(scores.values())\n'
                'return sorted((sizes[n], n) for n in scores if scores[n] >= top - (top * (1 - top) / len(labels)) ** 0.5)[0][1]')],
}
