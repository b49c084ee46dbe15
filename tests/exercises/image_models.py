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
        ("forgot the groups in the arithmetic",
         "weights = outside * (inside // groups) * kernel**2\n"
         "return weights, outside * inside * kernel**2 * (side // stride) ** 2",
         "each used at 16 places"),
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
        ("rounded the layers to the nearest number",
         "width = max(8, 8 * round(channels * 1.1**phi / 8))\n"
         "return round(layers * 1.2**phi), width, round(pixels * 1.15**phi)",
         "4.32 layers are 5"),
        ("rounded the layers down",
         "width = max(8, 8 * round(channels * 1.1**phi / 8))\nreturn int(layers * 1.2**phi), width, round(pixels * 1.15**phi)",
         "round up to 5"),
        ("left the channels as they came", "return math.ceil(layers * 1.2**phi), round(channels * 1.1**phi), round(pixels * 1.15**phi)",
         "no multiple of 8"),
    ],
}

RIGHT = {
    "quiet": [("convolutions without biases, as is usual before batch norm",
               "def __init__(self, channels):\n"
               "    super().__init__()\n"
               "    self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),\n"
               "                              nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))\n"
               "    nn.init.zeros_(self.body[-1].weight)\n"
               "\n"
               "def forward(self, x):\n"
               "    return x + self.body(x)")],
}
