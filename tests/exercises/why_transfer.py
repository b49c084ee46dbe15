"""Answers to the exercises of why_transfer: WRONG (what went wrong, code, words of the check that must fire), and RIGHT
ones in another form than the solution."""

_FEATURES = (
    "loaded.backbone.eval()\n"
    "with torch.no_grad():\n"
    "    features = loaded.backbone(loaded.preprocess(x))\n"
    "    features_test = loaded.backbone(loaded.preprocess(x_test))\n")
_HALF = (
    "mean = (a - b).mean()\n"
    "half = {}\n"
    "return mean, mean - half, mean + half")

WRONG = {
    "budget": [
        ("took the largest budget, which is enough but not the smallest", "budget = 50", "look for the smallest budget"),
        ("took the accuracy for the budget", "budget = 0.8", "must be one of"),
        ("took too few labels", "budget = 1", "too few labels"),
        ("wrote a text", 'budget = "20"', "must be a number, not the text '20'"),
        ("gave a list", "budget = [20]", "must be a number, not a list"),
        ("gave all accuracies", "budget = np.array([curve(n) for n in (1, 2)])", "one number, not an array"),
        ("left it empty", "budget = None", "has no value yet"),
    ],
    "probe": [
        ("forgot to preprocess",
         "loaded.backbone.eval()\n"
         "with torch.no_grad():\n"
         "    features, features_test = loaded.backbone(x), loaded.backbone(x_test)\n"
         "return LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "pass both through it"),
        ("forgot to preprocess the test pictures",
         _FEATURES.replace("loaded.preprocess(x_test)", "x_test")
         + "return LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "pass both through it"),
        ("computed gradients",
         "loaded.backbone.eval()\n"
         "features, features_test = (loaded.backbone(loaded.preprocess(part)) for part in (x, x_test))\n"
         "return LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "inside `with torch.no_grad():`"),
        ("returned the predictions", _FEATURES + "return LogisticRegression(max_iter=2000).fit(features, y).predict(features_test)",
         "must be one number, not an array of shape (400,)"),
        ("returned a percentage",
         _FEATURES + "return 100 * LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "a share between 0 and 1"),
        ("returned nothing", _FEATURES + "LogisticRegression(max_iter=2000).fit(features, y).score(features_test, y_test)",
         "returns nothing: end it with `return` and the share"),
        ("scored the training pictures", _FEATURES + "return LogisticRegression(C=10, max_iter=2000).fit(features, y).score(features, y)",
         "on the training pictures only"),
        ("fitted on wrong labels",
         _FEATURES + "return LogisticRegression(max_iter=2000).fit(features, y.roll(1)).score(features_test, y_test)",
         "a logistic regression on these features is right"),
        ("made a slip of the pen", "return lodaed.backbone(x)", "breaks off with NameError (name 'lodaed' is not defined)"),
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
        ("took std as numpy gives it", _HALF.format("stats.t.ppf(0.975, len(a) - 1) * (a - b).std() / np.sqrt(len(a))"), "ddof=1"),
        ("took n degrees of freedom", _HALF.format("stats.t.ppf(0.975, len(a)) * (a - b).std(ddof=1) / np.sqrt(len(a))"),
         "four degrees of freedom"),
        ("took one side", _HALF.format("stats.t.ppf(0.95, len(a) - 1) * (a - b).std(ddof=1) / np.sqrt(len(a))"), "take 0.975"),
        ("forgot the root of n", _HALF.format("stats.t.ppf(0.975, len(a) - 1) * (a - b).std(ddof=1)"), "divide by the square root"),
        ("forgot t", _HALF.format("(a - b).std(ddof=1) / np.sqrt(len(a))"), "the factor t is missing"),
        ("two slips at once", _HALF.format("stats.t.ppf(0.975, len(a)) * (a - b).std() / np.sqrt(len(a))"), "the limits are"),
        ("returned the half width", "return (a - b).mean()", "return three numbers"),
        ("turned the limits round",
         _HALF.format("-stats.t.ppf(0.975, len(a) - 1) * (a - b).std(ddof=1) / np.sqrt(len(a))"), "in this order"),
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
        ("took the last crossing",
         "crossings = [float('inf')]\n"
         "points = list(zip(budgets, accuracies))\n"
         "for (n0, a0), (n1, a1) in zip(points, points[1:]):\n"
         "    if a0 < goal <= a1:\n"
         "        crossings.append(float(n0 * (n1 / n0) ** ((goal - a0) / (a1 - a0))))\n"
         "return float(budgets[0]) if accuracies[0] >= goal else crossings[-1]",
         "take the first crossing"),
        ("trusted np.interp, which wants a rising curve",
         "if max(accuracies) < goal:\n"
         "    return float('inf')\n"
         "return float(np.exp(np.interp(goal, np.sort(accuracies), np.log(budgets))))",
         "take the first crossing"),
        ("returned text", "return 'ten'", "must be a number, not the text"),
    ],
}

RIGHT = {
    "budget": [("a float", "budget = float(min(n for n in (1, 2, 5, 10, 20, 50) if curve(n) >= 0.8))"),
               ("numpy's integer", "budget = np.int64(min(n for n in (1, 2, 5, 10, 20, 50) if curve(n) >= 0.8))")],
    "probe": [
        ("the book's own functions",
         "from tlutils.features import extract\n"
         "head = LogisticRegression(max_iter=2000).fit(extract(loaded, x), y)\n"
         "return torch.tensor(head.score(extract(loaded, x_test), y_test))"),
        ("inference mode, and the share by hand",
         "loaded.backbone.train(False)\n"
         "with torch.inference_mode():\n"
         "    features, features_test = (loaded.backbone(loaded.preprocess(part)).numpy() for part in (x, x_test))\n"
         "head = LogisticRegression(C=0.1, max_iter=2000).fit(features, y.numpy())\n"
         "return (head.predict(features_test) == y_test.numpy()).mean()")],
    "interval": [
        ("the book's own function", "from tlutils.metrics import paired_interval as interval\n"
                                    "found = interval(a, b)\nreturn [found.mean, found.low, found.high]"),
        ("scipy's own interval, as an array",
         "d = a - b\nreturn np.array([d.mean(), *stats.t.interval(0.95, len(d) - 1, loc=d.mean(), scale=stats.sem(d))])")],
    "needed": [
        ("the book's own function", "from tlutils.evaluation import labels_needed\nreturn np.float64(labels_needed(budgets, accuracies, goal))"),
        ("np.interp between two points, and a whole number at the ends",
         "at = next((i for i, a in enumerate(accuracies) if a >= goal), None)\n"
         "if not at:\n"
         "    return np.inf if at is None else budgets[0]\n"
         "return 10 ** np.interp(goal, accuracies[at - 1:at + 1], np.log10(budgets[at - 1:at + 1]))")],
}
