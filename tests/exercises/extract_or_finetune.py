"""Answers to the exercises of extract_or_finetune: WRONG (what went wrong, code, words of the check that must fire), and
RIGHT ones in another form than the solution."""

WRONG = {
    "passes": [
        ("took live augmentation for one pass", 'passes = {"live": pictures, "cache": pictures, "views": k * pictures, "epochs": k + 1}',
         "is a new picture for the backbone"),
        ("let the cache compute in every epoch",
         'passes = {"live": pictures * epochs, "cache": pictures * epochs, "views": k * pictures, "epochs": k + 1}',
         "the features are read, not computed"),
        ("counted the picture itself besides the views",
         'passes = {"live": pictures * epochs, "cache": pictures, "views": (k + 1) * pictures, "epochs": k + 1}',
         "is one of the k views, not one more"),
        ("multiplied the views by the epochs",
         'passes = {"live": pictures * epochs, "cache": pictures, "views": k * pictures * epochs, "epochs": k + 1}',
         "whatever the number of epochs"),
        ("took even for cheaper", 'passes = {"live": pictures * epochs, "cache": pictures, "views": k * pictures, "epochs": k}',
         "both plans need the same number of passes"),
        ("a list", "passes = [pictures * epochs, pictures, k * pictures, k + 1]", "must be a dict with the keys"),
        ("texts", 'passes = {"live": "many", "cache": "few", "views": "more", "epochs": "9"}', "live in passes must be a number"),
    ],
    "freeze-body": [
        ("froze by halves",
         "model.train()\nfor parameter in model.backbone.parameters():\n    parameter.requires_grad_(False)",
         "put the whole backbone into eval(), after model.train()"),
        ("eval first, then train",
         "model.backbone.eval()\nmodel.train()\nfor parameter in model.backbone.parameters():\n    parameter.requires_grad_(False)",
         "put the whole backbone into eval(), after model.train()"),
        ("froze the head too",
         "model.train()\nmodel.backbone.eval()\nfor parameter in model.parameters():\n    parameter.requires_grad_(False)",
         "the head must learn"),
        ("put everything into eval",
         "model.eval()\nfor parameter in model.backbone.parameters():\n    parameter.requires_grad_(False)",
         "the head's dropout is off"),
        ("put the backbone into eval only", "model.train()\nmodel.backbone.eval()", "still gets a gradient"),
        ("only the outermost batch norms",
         "model.train()\nfor part in model.backbone.children():\n    if isinstance(part, nn.BatchNorm1d):\n        part.eval()\n"
         "for parameter in model.backbone.parameters():\n    parameter.requires_grad_(False)",
         "put the whole backbone into eval(), after model.train()"),
        ("put only the batch norms into eval",
         "model.train()\nfor part in model.backbone.modules():\n    if isinstance(part, nn.BatchNorm1d):\n        part.eval()\n"
         "for parameter in model.backbone.parameters():\n    parameter.requires_grad_(False)",
         "not only its batch norms"),
        ("left a frozen head frozen",
         "model.train()\nmodel.backbone.eval()\nmodel.backbone.requires_grad_(False)",
         "a head that was frozen before stays frozen"),
        ("switched gradients off for the call only", "model.train()\nmodel.backbone.eval()\nwith torch.no_grad():\n    pass",
         "still gets a gradient"),
    ],
    "nearest": [
        ("took the Euclidean distance",
         "near = torch.cdist(new, train).topk(k, dim=1, largest=False).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1).argmax(1)",
         "divide by the lengths of both sides"),
        ("took the plain product",
         "near = (new @ train.T).topk(k, dim=1).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1).argmax(1)",
         "divide by the lengths of both sides"),
        ("took the smallest similarities",
         "unit = nn.functional.normalize\n"
         "near = (unit(new) @ unit(train).T).topk(k, dim=1, largest=False).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1).argmax(1)",
         "take the LARGEST similarities"),
        ("returned the places",
         "unit = nn.functional.normalize\nreturn (unit(new) @ unit(train).T).argmax(1)",
         "look up y at the neighbours' places"),
        ("let only the nearest vote",
         "unit = nn.functional.normalize\nreturn y[(unit(new) @ unit(train).T).argmax(1)]",
         "count the votes of all k"),
        ("wrote down k",
         "unit = nn.functional.normalize\nnear = (unit(new) @ unit(train).T).topk(3, dim=1).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1).argmax(1)",
         "use the k that is given"),
        ("returned the votes",
         "unit = nn.functional.normalize\nnear = (unit(new) @ unit(train).T).topk(k, dim=1).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1)",
         "one for each row of new"),
        ("normalised the columns",
         "unit = lambda rows: nn.functional.normalize(rows, dim=0)\nnear = (unit(new) @ unit(train).T).topk(k, dim=1).indices\n"
         "return nn.functional.one_hot(y[near], int(y.max()) + 1).sum(1).argmax(1)",
         "divide by the lengths of both sides"),
        ("averaged the labels",
         "unit = nn.functional.normalize\nnear = (unit(new) @ unit(train).T).topk(k, dim=1).indices\n"
         "return y[near].double().mean(1).round().long()",
         "labels are names"),
        ("took the median label",
         "unit = nn.functional.normalize\nnear = (unit(new) @ unit(train).T).topk(k, dim=1).indices\n"
         "return y[near].median(1).values",
         "labels are names"),
    ],
    "good-enough": [
        ("took the cheapest of all", 'return runs.groupby("method")["seconds"].mean().idxmin()', "not good enough here"),
        ("took the best", 'return runs.groupby("method")["accuracy"].mean().idxmax()', "a cheaper one is proved"),
        ("did not pair the runs",
         'best = runs.groupby("method")["accuracy"].mean().idxmax()\n'
         'a = metrics.t_interval(runs.loc[runs["method"] == best, "accuracy"])\n'
         'fine = [best] + [name for name, part in runs.groupby("method")\n'
         '                 if a.high - metrics.t_interval(part["accuracy"]).low <= margin]\n'
         'return runs.groupby("method")["seconds"].mean()[fine].idxmin()',
         "the draws hide it"),
        ("looked at the mean",
         'means = runs.groupby("method")["accuracy"].mean()\n'
         'fine = means[means >= means.max() - margin].index\n'
         'return runs.groupby("method")["seconds"].mean()[fine].idxmin()',
         "use the interval's upper limit"),
        ("asked whether a difference is shown",
         'table = runs.pivot(index="seed", columns="method", values="accuracy")\n'
         'best = table.mean().idxmax()\n'
         'fine = [best] + [n for n in table.columns.drop(best) if metrics.paired_interval(table[best], table[n]).low <= 0]\n'
         'return runs.groupby("method")["seconds"].mean()[fine].idxmin()',
         "is probe, you have"),
        ("left the best out",
         'table = runs.pivot(index="seed", columns="method", values="accuracy")\n'
         'best = table.mean().idxmax()\n'
         'fine = [n for n in table.columns.drop(best) if metrics.paired_interval(table[best], table[n]).high <= margin]\n'
         'return runs.groupby("method")["seconds"].mean()[fine or [table.columns[0]]].idxmin()',
         "where the cheapest is also the best"),
        ("paired the runs in the order of the rows",
         'score = {n: p["accuracy"].to_numpy() for n, p in runs.groupby("method")}\n'
         'best = runs.groupby("method")["accuracy"].mean().idxmax()\n'
         'fine = [best] + [n for n in score if n != best and metrics.paired_interval(score[best], score[n]).high <= margin]\n'
         'return runs.groupby("method")["seconds"].mean()[fine].idxmin()',
         "the draws hide it"),
        ("subtracted the wrong way round",
         'table = runs.pivot(index="seed", columns="method", values="accuracy")\n'
         'best = table.mean().idxmax()\n'
         'fine = [best] + [n for n in table.columns.drop(best) if metrics.paired_interval(table[n], table[best]).high <= margin]\n'
         'return runs.groupby("method")["seconds"].mean()[fine].idxmin()',
         "not good enough here"),
    ],
}

RIGHT = {
    "passes": [("floats", 'passes = {"live": float(pictures * epochs), "cache": float(pictures), "views": float(k * pictures), "epochs": k + 1.0}')],
    "freeze-body": [("module by module",
                     "model.train()\nfor part in model.backbone.modules():\n    part.training = False\n"
                     "model.backbone.requires_grad_(False)\nmodel.head.requires_grad_(True)")],
    "nearest": [("with mode", "unit = nn.functional.normalize\nreturn y[(new @ unit(train).T).topk(k, dim=1).indices].mode(1).values"),
                ("with scikit-learn",
                 "from sklearn.neighbors import KNeighborsClassifier\n"
                 "votes = KNeighborsClassifier(k, metric='cosine').fit(train.numpy(), y.numpy())\n"
                 "return torch.as_tensor(votes.predict(new.numpy()))")],
    "good-enough": [("by sorting",
                     'cost = runs.groupby("method")["seconds"].mean().sort_values()\n'
                     'best = runs.groupby("method")["accuracy"].mean().idxmax()\n'
                     'score = {n: p.sort_values("seed")["accuracy"].to_numpy() for n, p in runs.groupby("method")}\n'
                     'for name in cost.index:\n'
                     '    if name == best or metrics.paired_interval(score[best], score[name]).high <= margin:\n'
                     '        return name')],
}
