"""Typical wrong answers to the exercises of image_models: (what went wrong, code, words of the check that must fire)."""

BODY = """def __init__(self, channels):
    super().__init__()
    self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
                              nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
"""

WRONG = {
    "choice": [
        ("took the best of all, however slow", "choice = max(accuracy, key=accuracy.get)", "more than"),
        ("took the fastest", "choice = min(milliseconds, key=milliseconds.get)", "has the better features"),
        ("took the number for the name", "choice = milliseconds['resnet-mini']", "must be one of"),
    ],
    "cost": [
        ("counted the places of the input", "weights = outside * (inside // groups) * kernel**2\nreturn weights, weights * side**2",
         "count those of the output"),
        ("forgot the groups", "weights = outside * inside * kernel**2\nreturn weights, weights * (side // stride) ** 2",
         "a depthwise filter sees one channel"),
        ("forgot that a filter covers all input channels", "weights = outside * kernel**2\nreturn weights, weights * (side // stride) ** 2",
         "16 filters of 3 x 3 x 3"),
    ],
    "quiet": [
        ("forgot the skip", BODY + "    nn.init.zeros_(self.body[-1].weight)\n\ndef forward(self, x):\n    return self.body(x)",
         "is it added"),
        ("left the body as it was drawn", BODY + "\ndef forward(self, x):\n    return x + self.body(x)", "changes its input before training"),
        ("gave the input back", BODY + "\ndef forward(self, x):\n    return x", "it can't learn"),
        ("multiplied the body by zero", BODY + "\ndef forward(self, x):\n    return x + 0 * self.body(x)", "has not moved"),
    ],
    "scaling": [
        ("rounded the layers down",
         "width = max(8, 8 * round(channels * 1.1**phi / 8))\nreturn int(layers * 1.2**phi), width, round(pixels * 1.15**phi)",
         "round up to 5"),
        ("left the channels as they came", "return math.ceil(layers * 1.2**phi), round(channels * 1.1**phi), round(pixels * 1.15**phi)",
         "no multiple of 8"),
    ],
}
