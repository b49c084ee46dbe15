"""Answers to the exercises of domain_shift: WRONG (what went wrong, code, words of the check that must fire), and RIGHT
ones in another form than the solution."""

_KERNELS = (
    "n, m = len(a), len(b)\n"
    "one, two, both = (np.exp(-cdist(p, q) ** 2 / (2 * bandwidth ** 2)) for p, q in ((a, a), (b, b), (a, b)))\n")
_APART = "(one.sum() - n) / (n * (n - 1)) + (two.sum() - m) / (m * (m - 1))"
_LAYERS = "[part for part in adapted.modules() if isinstance(part, torch.nn.BatchNorm2d)]"
_ADABN = (
    "adapted = copy.deepcopy(model)\n"
    "for layer in " + _LAYERS + ":\n"
    "    layer.reset_running_stats()\n"
    "    layer.momentum = None\n"
    "adapted.train()\n"
    "with torch.no_grad():\n"
    "    adapted(pictures)\n")

WRONG = {
    "dial": [
        ("took the whole dial", "strength = 1", "too far up the dial"),
        ("stayed at the start", "strength = 0", "go further"),
        ("gave the accuracy", "strength = accuracy(0.1)", "must be one of the steps"),
        ("wrote a text", 'strength = "0.1"', "must be a number, not the text '0.1'"),
        ("left it empty", "strength = None", "has no value yet"),
    ],
    "mmd": [
        ("compared examples with themselves", _KERNELS + "return one.mean() + two.mean() - 2 * both.mean()", "leave out the diagonal"),
        ("took the cross term once", _KERNELS + "return " + _APART + " - both.mean()", "is taken off twice"),
        ("forgot the two in the kernel", _KERNELS.replace("(2 * bandwidth ** 2)", "bandwidth ** 2") + "return " + _APART + " - 2 * both.mean()",
         "divides by 2 * bandwidth**2"),
        ("forgot the square of the distance", _KERNELS.replace("cdist(p, q) ** 2", "cdist(p, q)") + "return " + _APART + " - 2 * both.mean()",
         "the square of the distance"),
        ("took the root", _KERNELS + "return np.sqrt(" + _APART + " - 2 * both.mean())", "not its root"),
        ("turned the sign round", _KERNELS + "return 2 * both.mean() - (" + _APART + ")", "the sign is turned round"),
        ("compared the means of the features", "return ((a.mean(0) - b.mean(0)) ** 2).sum()", "means over pairs of different examples"),
        ("returned the kernel", _KERNELS + "return both", "one number, not an array of shape (8, 11)"),
        ("returned nothing", _KERNELS, "returns nothing: end it with `return` and the squared discrepancy"),
    ],
    "adabn": [
        ("changed the model itself", _ADABN.replace("copy.deepcopy(model)", "model") + "return adapted.eval()", "work on copy.deepcopy(model)"),
        ("left it in training mode", _ADABN + "return adapted", "still in training mode"),
        ("stayed in evaluation mode", _ADABN.replace("adapted.train()", "adapted.eval()").replace("    layer.reset_running_stats()\n", "")
         + "return adapted.eval()", "take notice in training mode only"),
        ("kept the momentum of a tenth",
         "adapted = copy.deepcopy(model).train()\nwith torch.no_grad():\n    adapted(pictures)\nreturn adapted.eval()", "of the way to the new ones"),
        ("forgot the old statistics and kept the momentum", _ADABN.replace("    layer.momentum = None\n", "") + "return adapted.eval()",
         "of the way to the new ones"),
        ("the last batch alone",
         "adapted = copy.deepcopy(model).train()\nfor layer in " + _LAYERS + ":\n    layer.momentum = 1.0\n"
         "with torch.no_grad():\n    for i in range(0, len(pictures), 64):\n        adapted(pictures[i:i + 64])\nreturn adapted.eval()",
         "not those of the pictures"),
        ("returned the predictions", _ADABN + "return adapted.eval()(pictures)", "return the adapted model, not a Tensor"),
        ("returned nothing", _ADABN, "returns nothing: end it with `return` and the adapted copy"),
        ("reset the scale as well", _ADABN.replace("layer.reset_running_stats()", "layer.reset_parameters()") + "return adapted.eval()",
         "AdaBN learns nothing"),
    ],
    "threshold": [
        ("returned the old accuracy", "return right.mean()", "the accuracy on the old pictures"),
        ("averaged the confidence", "return now.mean()", "the mean confidence"),
        ("counted the right answers below", "return (now >= np.sort(sure)[int(right.sum())]).mean()", "not as many as were right"),
        ("took the share below", "return (now < np.sort(sure)[int((right == 0).sum())]).mean()", "the share below the threshold"),
        ("took the threshold from the new pictures", "return (now >= np.quantile(now, 1 - right.mean())).mean()",
         "take the threshold from the old confidences"),
        ("counted", "return (now >= np.sort(sure)[int((right == 0).sum())]).sum()", "a share between 0 and 1"),
        ("took the median confidence of the wrong answers", "return (now >= np.median(sure[right == 0])).mean()",
         "the threshold is"),
        ("took three quarters for the threshold", "return (now >= 0.75).mean()", "so the threshold is"),
    ],
}

RIGHT = {
    "dial": [("wrote the number as a whole loop", "strength = 0.0\nwhile strength < 0.95 and accuracy(round(strength + 0.1, 1)) >= 0.8:\n"
              "    strength = round(strength + 0.1, 1)")],
    "mmd": [("loops over pairs",
             "def k(p, q):\n    return np.exp(-((p - q) ** 2).sum() / (2 * bandwidth ** 2))\n"
             "one = np.mean([k(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j])\n"
             "two = np.mean([k(p, q) for i, p in enumerate(b) for j, q in enumerate(b) if i != j])\n"
             "return one + two - 2 * np.mean([k(p, q) for p in a for q in b])")],
    "adabn": [("sets the momentum to one",
               "adapted = copy.deepcopy(model).train()\nfor layer in " + _LAYERS + ":\n    layer.momentum = 1.0\n"
               "with torch.no_grad():\n    adapted(pictures)\nreturn adapted.eval()")],
    "threshold": [("takes a quantile", "return (now >= np.quantile(sure, 1 - right.mean())).mean()")],
}
