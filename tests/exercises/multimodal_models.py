"""Typical wrong answers to the exercises of multimodal_models: (what went wrong, code, words of the check that must fire)."""

WRONG = {
    "warmest": [
        ("took the safest instead of the warmest that will do", "warmest = 0.25", "look for the highest"),
        ("took the warmest of all", "warmest = 4", "too warm"),
        ("took the share for the temperature", "warmest = 0.75", "must be one of"),
    ],
    "loss": [
        ("normalised the columns",
         "logits = scale * F.normalize(pictures, dim=0) @ F.normalize(captions, dim=0).T\n"
         "answer = torch.arange(len(logits))\n"
         "return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2",
         "bring each row to length one"),
        ("forgot to halve",
         "logits = scale * F.normalize(pictures, dim=1) @ F.normalize(captions, dim=1).T\n"
         "answer = torch.arange(len(logits))\n"
         "return F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)",
         "the mean of the two ways"),
        ("divided by the scale",
         "logits = F.normalize(pictures, dim=1) @ F.normalize(captions, dim=1).T / (scale + 1)\n"
         "answer = torch.arange(len(logits))\n"
         "return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2",
         "with scale 0 this is a guess"),
        ("asked one way only",
         "logits = scale * F.normalize(pictures, dim=1) @ F.normalize(captions, dim=1).T\n"
         "return F.cross_entropy(logits, torch.arange(len(logits)))",
         "ask the other way as well"),
        ("forgot to normalise",
         "logits = scale * pictures @ captions.T\n"
         "answer = torch.arange(len(logits))\n"
         "return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2",
         "bring each row to length one"),
        ("forgot the scale",
         "logits = F.normalize(pictures, dim=1) @ F.normalize(captions, dim=1).T\n"
         "answer = torch.arange(len(logits))\n"
         "return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2",
         "the scale changes nothing"),
        ("returned a loss for each pair",
         "logits = scale * F.normalize(pictures, dim=1) @ F.normalize(captions, dim=1).T\n"
         "return -logits.log_softmax(1).diagonal()",
         "return one number"),
    ],
    "classify": [
        ("took the first caption of each class",
         "classes = torch.stack([F.normalize(clip.backbone.texts(group)[0], dim=0) for group in prompts])\n"
         "return (pictures @ classes.T).argmax(1)",
         "average over all of them"),
        ("left the mean short",
         "classes = torch.stack([clip.backbone.texts(group).mean(0) for group in prompts])\n"
         "return (pictures @ classes.T).argmax(1)",
         "bring it back to length one"),
        ("numbered the captions instead of the classes",
         "said = clip.backbone.texts([text for group in prompts for text in group])\n"
         "return (pictures @ said.T).argmax(1)",
         "captions class by class"),
    ],
    "nearest": [
        ("took the largest product", "return (vectors @ codes.T).argmax(1)", "a long code has large products"),
        ("took the farthest code", "return torch.cdist(vectors, codes).argmax(1)", "farthest away"),
        ("returned distances", "return torch.cdist(vectors, codes).min(1).values.long()", "another code than the nearest"),
    ],
}
