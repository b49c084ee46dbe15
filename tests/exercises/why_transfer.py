"""Typical wrong answers to the exercises of why_transfer: (what went wrong, code, words of the check that must fire)."""

WRONG = {
    "budget": [
        ("took the largest budget, which is enough but not the smallest", "budget = 50", "look for the smallest budget"),
        ("took the accuracy for the budget", "budget = 0.8", "must be one of"),
        ("took too few labels", "budget = 1", "too few labels"),
    ],
    "probe": [
        ("forgot to preprocess",
         "loaded.backbone.eval()\n"
         "with torch.no_grad():\n"
         "    features, features_test = loaded.backbone(x * 0 + x.mean()), loaded.backbone(x_test * 0 + x.mean())\n"
         "return LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "preprocessed"),
        ("fitted the head on the test pictures",
         "loaded.backbone.eval()\n"
         "with torch.no_grad():\n"
         "    features_test = loaded.backbone(loaded.preprocess(x_test))\n"
         "return LogisticRegression(C=100, max_iter=3000).fit(features_test, y_test).score(features_test, y_test)",
         "fitted on the training pictures only"),
        ("left the backbone in training mode",
         "with torch.no_grad():\n"
         "    features = loaded.backbone(loaded.preprocess(x))\n"
         "    features_test = loaded.backbone(loaded.preprocess(x_test))\n"
         "return LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "call eval() before it runs"),
    ],
    "interval": [
        ("did not pair the runs",
         "half = stats.t.ppf(0.975, len(a) - 1) * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))\n"
         "mean = (a - b).mean()\n"
         "return mean, mean - half, mean + half",
         "far too wide"),
        ("took the normal distribution",
         "half = 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a))\n"
         "mean = (a - b).mean()\n"
         "return mean, mean - half, mean + half",
         "too narrow for five runs"),
    ],
    "needed": [
        ("interpolated linearly in the labels",
         "return float(np.interp(goal, accuracies, budgets)) if goal <= accuracies[-1] else float('inf')",
         "logarithm of the labels"),
        ("returned the next budget",
         "return next((float(n) for n, a in zip(budgets, accuracies) if a >= goal), float('inf'))",
         "half way between 10 and 100"),
        ("forgot the curve that never gets there",
         "return float(np.exp(np.interp(goal, accuracies, np.log(budgets))))",
         "never reaches 0.9"),
    ],
}
