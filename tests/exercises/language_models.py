"""Typical wrong answers to the exercises of language_models: (what went wrong, code, words of the check that must fire)."""

WRONG = {
    "budget": [
        ("took the largest budget, which is enough but not the smallest", "budget = 200", "look for the smallest budget"),
        ("took too few labels", "budget = 5", "too few labels"),
        ("took the accuracy for the budget", "budget = 0.65", "must be one of"),
    ],
    "causal": [
        ("gave all places before the same weight",
         "allowed = torch.ones_like(scores).tril()\n"
         "return allowed / allowed.sum(-1, keepdim=True)",
         "the plain softmax of its scores"),
        ("forgot the mask", "return scores.softmax(-1)", "looks ahead"),
        ("took the upper triangle",
         "return scores.masked_fill(torch.ones_like(scores).tril(-1).bool(), float('-inf')).softmax(-1)",
         "looks ahead"),
        ("ruled places out after the softmax", "return scores.softmax(-1).tril()", "before the softmax"),
        ("forbade a token to look at itself",
         "return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float('-inf')).softmax(-1).tril(-1)",
         "must sum to 1"),
    ],
    "pool": [
        ("took the mean over all places", "return hidden.mean(1)", "padding counts"),
        ("left padding out of the sum but not of the count", "return (hidden * mask.unsqueeze(-1)).mean(1)", "number of tokens, not of places"),
        ("took the first token", "return hidden[:, 0]", "plain mean of its tokens"),
    ],
    "cover": [
        ("put one and the same word everywhere",
         "asked = (tokens >= 5) & (torch.rand(tokens.shape, generator=generator) < 0.15)\n"
         "kind = torch.rand(tokens.shape, generator=generator)\n"
         "seen = tokens.clone()\n"
         "seen[asked & (kind < 0.8)] = MASK\n"
         "seen[asked & (kind >= 0.9)] = 7\n"
         "return seen, torch.where(asked, tokens, -100)",
         "nearly all the same"),
        ("covered every word that is asked for",
         "asked = (tokens >= 5) & (torch.rand(tokens.shape, generator=generator) < 0.15)\n"
         "return torch.where(asked, MASK, tokens), torch.where(asked, tokens, -100)",
         "became MASK; it must be 80 %"),
        ("asked for padding too",
         "asked = torch.rand(tokens.shape, generator=generator) < 0.15\n"
         "return torch.where(asked, MASK, tokens), torch.where(asked, tokens, -100)",
         "never be asked for"),
        ("asked for every word",
         "asked = (tokens >= 5) & (torch.rand(tokens.shape, generator=generator) < 0.15)\n"
         "return torch.where(asked, MASK, tokens), torch.where(tokens >= 5, tokens, -100)",
         "it must be 15 %"),
        ("worked in place",
         "asked = (tokens >= 5) & (torch.rand(tokens.shape, generator=generator) < 0.15)\n"
         "labels = torch.where(asked, tokens, -100)\n"
         "tokens[asked] = MASK\n"
         "return tokens, labels",
         "work on a copy"),
    ],
}

RIGHT = {
    "causal": [("softmax first, then the lower triangle, then to sum one again",
                "weights = scores.softmax(-1).tril()\n"
                "return weights / weights.sum(-1, keepdim=True)")],
}
