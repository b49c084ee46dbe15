"""Answers to the exercises of mathematics: WRONG (what went wrong, code, words of the check that must fire), and RIGHT ones
in another form than the solution."""

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
        ("gave a text", 'flip = "0.11"', "must be a number, not the text '0.11'"),
        ("gave all candidates", "flip = np.arange(0, 0.5, 0.1)", "one number, not an array"),
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
        ("returned one answer for each picture", "return np.isclose(joint[:, 0], joint[:, 1])", "must be one True or False, not an array"),
        ("returned the difference",
         "merged = np.zeros((F.max() + 1, joint.shape[1]))\n"
         "np.add.at(merged, F, joint)\n"
         "return 0.5 + information(joint) - information(merged)",
         "must be one True or False"),
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
        ("did not stop at 0", _DISTANCE + "error = 1 - classifier.score(features[~even], domain[~even])\nreturn 2 * (1 - 2 * error)",
         "never return less than 0"),
        ("took the even rows of the two put together",
         _DISTANCE.replace("np.concatenate([np.arange(len(source)), np.arange(len(target))])", "np.arange(len(features))")
         + "error = 1 - classifier.score(features[~even], domain[~even])\nreturn max(2 * (1 - 2 * error), 0.0)",
         "fit on rows 0, 2, 4 ... of each"),
        ("fitted on the odd rows",
         _DISTANCE.replace("% 2 == 0", "% 2 == 1")
         + "error = 1 - classifier.score(features[~even], domain[~even])\nreturn max(2 * (1 - 2 * error), 0.0)",
         "fit on rows 0, 2, 4 ... of each"),
        ("returned the predictions", _DISTANCE + "return classifier.predict(features[~even])", "must be one number, not an array"),
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
        ("trained before the watch began",
         _ASSEMBLE + "train(model)\nwith freezing.assert_frozen(target.backbone.stages[:n]):\n    pass\nreturn model",
         "train(model) ran outside of the watch"),
        ("trained before the watch, and again inside",
         _ASSEMBLE + "train(model)\nwith freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)\nreturn model",
         "train(model) ran outside of the watch"),
        ("watched nothing", _ASSEMBLE + "with freezing.assert_frozen(torch.nn.Identity()):\n    train(model)\nreturn model",
         "watches something else than the copied stages"),
        ("watched the donor", _ASSEMBLE + "with freezing.assert_frozen(donor.backbone):\n    train(model)\nreturn model",
         "watches something else than the copied stages"),
        ("watched the first stage only", _ASSEMBLE + "with freezing.assert_frozen(target.backbone.stages[:1]):\n    train(model)\nreturn model",
         "watches something else than the copied stages"),
        ("returned nothing", _ASSEMBLE + "with freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)",
         "returns nothing: end it with `return` and the classifier"),
        ("returned the network without its head",
         _ASSEMBLE + "with freezing.assert_frozen(target.backbone.stages[:n]):\n    train(model)\nreturn target", "a Loaded"),
    ],
}

RIGHT = {
    "flip": [("numpy's number, from the other side", "flip = np.float32(1 - min(np.arange(0.001, 0.5, 0.002), key=lambda p: "
                                                     "abs(information(labels_of_two_pictures(p)) - goal)))")],
    "sufficient": [
        ("conditional probabilities, as numpy's truth",
         "conditional = joint / joint.sum(1, keepdims=True)\n"
         "return np.all([np.ptp(conditional[F == value], axis=0).max() < 1e-9 for value in np.unique(F)])")],
    "distance": [
        ("a scaled classifier, fitted part by part",
         "from sklearn.pipeline import make_pipeline\n"
         "from sklearn.preprocessing import StandardScaler\n"
         "model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))\n"
         "model.fit(np.vstack([source[::2], target[::2]]), [0] * len(source[::2]) + [1] * len(target[::2]))\n"
         "wrong = np.concatenate([model.predict(source[1::2]) != 0, model.predict(target[1::2]) != 1])\n"
         "return np.clip(2 * (1 - 2 * wrong.mean()), 0, None)")],
    "anb": [
        ("assert_frozen imported by name",
         "from tlutils.freezing import assert_frozen, freeze\n"
         "from tlutils.finetune import Classifier\n"
         "copied = target.backbone.stages[:n]\n"
         "copied.load_state_dict(donor.backbone.stages[:n].state_dict())\n"
         "freeze(copied)\n"
         "model = Classifier(target, 10, seed=seed)\n"
         "with assert_frozen(copied):\n"
         "    train(model)\n"
         "return model"),
        ("one watch for each stage",
         _ASSEMBLE + "from contextlib import ExitStack\n"
         "with ExitStack() as stack:\n"
         "    for stage in model.backbone.stages[:n] or [torch.nn.Identity()]:\n"
         "        stack.enter_context(freezing.assert_frozen(stage))\n"
         "    train(model)\n"
         "return model")],
}
