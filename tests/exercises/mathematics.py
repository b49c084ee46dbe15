"""Typical wrong answers to the exercises of mathematics: (what went wrong, code, words of the check that must fire)."""

_ASSEMBLE = (
    "for mine, theirs in list(zip(target.backbone.stages, donor.backbone.stages))[:n]:\n"
    "    mine.load_state_dict(theirs.state_dict())\n"
    "    freezing.freeze(mine)\n"
    "model = finetune.Classifier(target, 10, seed=seed)\n")
_DISTANCE = (
    "features = np.concatenate([source, target])\n"
    "domain = np.repeat([0, 1], [len(source), len(target)])\n"
    "even = np.concatenate([np.arange(len(source)), np.arange(len(target))]) % 2 == 0\n"
    "classifier = LogisticRegression(max_iter=1000).fit(features[even], domain[even])\n")

WRONG = {
    "flip": [
        ("half the labels wrong, half the information", "flip = 0.5", "a coin toss"),
        ("halved again", "flip = 0.25", "too much noise"),
        ("too little", "flip = 0.05", "not enough noise"),
        ("gave a percentage", "flip = 11", "is a probability"),
    ],
    "sufficient": [
        ("took sufficient for injective", "return len(set(F.tolist())) == len(F)", "whose label has the same distribution"),
        ("compared the best guesses",
         "guess = joint.argmax(1)\n"
         "return all(len(set(guess[F == v].tolist())) == 1 for v in set(F.tolist()))",
         "the best guess is the same"),
        ("compared joint instead of conditional probabilities",
         "return all(np.allclose(joint[F == v], joint[F == v][0]) for v in set(F.tolist()))",
         "compare conditional probabilities"),
        ("asked whether F says anything at all",
         "merged = np.zeros((F.max() + 1, joint.shape[1]))\n"
         "np.add.at(merged, F, joint)\n"
         "return information(merged) > 0.1",
         "keeps a part of the information"),
    ],
    "distance": [
        ("judged on the rows it was fitted on",
         _DISTANCE + "error = 1 - classifier.score(features[even], domain[even])\nreturn max(2 * (1 - 2 * error), 0.0)",
         "which it was not fitted on"),
        ("took the accuracy for the error",
         _DISTANCE + "error = classifier.score(features[~even], domain[~even])\nreturn max(2 * (1 - 2 * error), 0.0)",
         "takes the error, not the accuracy"),
        ("forgot the factor 2",
         _DISTANCE + "error = 1 - classifier.score(features[~even], domain[~even])\nreturn max(1 - 2 * error, 0.0)",
         "never overlap are at distance 2"),
    ],
    "anb": [
        ("stopped the gradients only, so the batch-norm statistics drift",
         "for mine, theirs in list(zip(target.backbone.stages, donor.backbone.stages))[:n]:\n"
         "    mine.load_state_dict(theirs.state_dict())\n"
         "    mine.requires_grad_(False)\n"
         "model = finetune.Classifier(target, 10, seed=seed)\n"
         "train(model)\n"
         "return model",
         "requires_grad alone does not"),
        ("the same, and the proof caught it",
         "for mine, theirs in list(zip(target.backbone.stages, donor.backbone.stages))[:n]:\n"
         "    mine.load_state_dict(theirs.state_dict())\n"
         "    mine.requires_grad_(False)\n"
         "model = finetune.Classifier(target, 10, seed=seed)\n"
         "with freezing.assert_frozen(target.backbone.stages[:n]):\n"
         "    train(model)\n"
         "return model",
         "its module ran in training mode"),
        ("froze the whole backbone",
         _ASSEMBLE.replace("freezing.freeze(mine)", "freezing.freeze(target.backbone)")
         + "with freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)\nreturn model",
         "has not learned: only the first"),
        ("froze random stages: forgot to copy",
         _ASSEMBLE.replace("    mine.load_state_dict(theirs.state_dict())\n", "")
         + "with freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)\nreturn model",
         "are not the donor's"),
        ("copied, but did not freeze: BnB+ instead of BnB", _ASSEMBLE.replace("    freezing.freeze(mine)\n", "")
         + "train(model)\nreturn model",
         "are not the donor's"),
        ("no proof", _ASSEMBLE + "train(model)\nreturn model", "the proof is part of the exercise"),
        ("returned nothing", _ASSEMBLE + "with freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)", "return the classifier"),
    ],
}
