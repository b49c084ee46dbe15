"""Answers to the exercises of distillation: WRONG (what went wrong, code, words of the check that must fire), and RIGHT
ones in another form than the solution."""

_P = "p, q = (teacher.detach() / temperature).softmax(1), (student / temperature).softmax(1)\n"
_HARD = " + (1 - weight) * F.cross_entropy(student, y)"
_SOFT = "(p * (p / q).log()).sum(1).mean()"
_LOOP = """optimizer, losses = torch.optim.SGD(student.parameters(), lr=lr), []
teacher.eval()
student.train()
for x, y in batches:
    x = augment(x)
    with torch.no_grad():
        said = teacher(x)
    value = loss(student(x), said, y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    losses.append(value.item())
return losses"""


def _loop(old: str, new: str) -> str:
    assert old in _LOOP, old
    return _LOOP.replace(old, new)


WRONG = {
    "hot": [
        ("left it at one", "hot = 1", "hotter"),
        ("took the hottest", "hot = 10", "is enough already"),
        ("took the entropy for the temperature", "hot = goal", "hot must be one of"),
        ("wrote a text", 'hot = "3"', "must be a number, not the text '3'"),
        ("left it empty", "hot = None", "has no value yet"),
    ],
    "loss": [
        ("forgot the temperature squared", _P + f"return weight * {_SOFT}" + _HARD, "not multiplied by the temperature squared"),
        ("did not square it", _P + "return weight * temperature * (p * (p / q).log()).sum(1).mean()" + _HARD, "the temperature enters squared"),
        ("turned the divergence round", _P + "return weight * temperature ** 2 * (q * (q / p).log()).sum(1).mean()" + _HARD, "runs the wrong way"),
        ("took the cross-entropy with the soft answer", _P + "return weight * temperature ** 2 * -(p * q.log()).sum(1).mean()" + _HARD,
         "take the divergence"),
        ("softened the student only",
         "p, q = teacher.detach().softmax(1), (student / temperature).softmax(1)\n"
         "return weight * temperature ** 2 * (p * (p / q).log()).sum(1).mean()" + _HARD, "soften both"),
        ("softened the hard part", _P + f"soft = {_SOFT}\n"
         "return weight * temperature ** 2 * soft + (1 - weight) * F.cross_entropy(student / temperature, y)", "at temperature 1"),
        ("swapped the weights", _P + f"soft = {_SOFT}\n"
         "return (1 - weight) * temperature ** 2 * soft + weight * F.cross_entropy(student, y)", "with a weight of 0"),
        ("added the hard part whole", _P + "return weight * temperature ** 2 * (p * (p / q).log()).sum(1).mean() + F.cross_entropy(student, y)",
         "a soft loss of 0"),
        ("summed over the examples", _P + "return weight * temperature ** 2 * (p * (p / q).log()).sum()" + _HARD, "average over the examples"),
        ("averaged over the classes", _P + "return weight * temperature ** 2 * (p * (p / q).log()).mean()" + _HARD, "sum over the classes"),
        ("let the gradient into the teacher",
         _P.replace(".detach()", "") + f"return weight * temperature ** 2 * {_SOFT}" + _HARD, "a gradient reaches the teacher"),
        ("one loss for each example", _P + "return weight * temperature ** 2 * (p * (p / q).log()).sum(1)" + _HARD, "average over the examples"),
        ("returned nothing", _P, "returns nothing"),
    ],
    "dark": [
        ("kept the largest instead of the true class",
         "sure, best = p.max(1, keepdim=True)\nreturn ((1 - sure) / (p.shape[1] - 1)).expand_as(p).scatter(1, best, sure)",
         "keep what it gives the true class"),
        ("divided among all classes",
         "sure = p.gather(1, y[:, None])\nreturn ((1 - sure) / p.shape[1]).expand_as(p).scatter(1, y[:, None], sure)", "each row adds up to 1"),
        ("wrote into p", "p[:] = 0.1\nreturn p", "you wrote into p"),
        ("gave the label", "return F.one_hot(y, p.shape[1]).float()", "keep what it gives the true class"),
        ("left it as it was", "return p.clone()", "0.133 each"),
        ("returned the confidence alone", "return p.gather(1, y[:, None])", "a probability for each class"),
    ],
    "distil": [
        ("showed the teacher the plain picture",
         _loop("    x = augment(x)\n", "    plain, x = x, augment(x)\n").replace("teacher(x)", "teacher(plain)"),
         "student and teacher saw different pictures"),
        ("augmented twice", _loop("said = teacher(x)", "said = teacher(augment(x))"), "student and teacher saw different pictures"),
        ("left the teacher in training mode", _loop("teacher.eval()\n", ""), "the teacher was in training mode"),
        ("left out no_grad", _loop("    with torch.no_grad():\n        said = teacher(x)", "    said = teacher(x)"), "ask it under torch.no_grad()"),
        ("left out the augmentation", _loop("    x = augment(x)\n", ""), "call augment first"),
        ("put the student into evaluation mode", _loop("student.train()", "student.eval()"), "the student learns in training mode"),
        ("never stepped", _loop("    optimizer.step()\n", ""), "the student has not changed"),
        ("let the gradients pile up", _loop("    optimizer.zero_grad()\n", "").replace("value.backward()", "(60 * value).backward()"),
         "the loss does not fall"),
        ("asked the student twice", _loop("value = loss(student(x)", "student(x)\n    value = loss(student(x)"), "the student was asked 8 times"),
        ("returned tensors", _loop("value.item()", "value.detach()"), "return floats"),
        ("returned the last loss", _loop("return losses", "return losses[-1]"), "return a list of 4 losses"),
        ("returned nothing", _loop("return losses", "pass"), "returns nothing"),
    ],
}

RIGHT = {
    "hot": [("by torch's entropy",
             "hot = min(t for t in (1, 2, 3, 4, 5, 6, 8, 10) if torch.special.entr((logits / t).softmax(1)).sum(1).mean() >= goal)")],
    "loss": [
        ("by kl_div", "soft = F.kl_div((student / temperature).log_softmax(1), (teacher.detach() / temperature).softmax(1), reduction='batchmean')\n"
                      "return weight * temperature ** 2 * soft + (1 - weight) * F.cross_entropy(student, y)"),
        ("under no_grad", "with torch.no_grad():\n    p = (teacher / temperature).softmax(1)\n"
                          "q = (student / temperature).log_softmax(1)\n"
                          "soft = (torch.special.xlogy(p, p) - p * q).sum(-1).mean()\n"
                          "return weight * temperature * temperature * soft + (1 - weight) * F.cross_entropy(student, y)"),
    ],
    "dark": [("by a mask", "right = F.one_hot(y, p.shape[1]).bool()\nsure = (p * right).sum(1, keepdim=True)\n"
                           "return torch.where(right, p, (1 - sure) / (p.shape[1] - 1))")],
    "distil": [("with the teacher's answer detached too", _loop("loss(student(x), said, y)", "loss(student(x), said.detach(), y)"))],
}
