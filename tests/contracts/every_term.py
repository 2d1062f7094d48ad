"""Every penalty and every head that there is, each under one name, for contracts that all of them keep."""

import attribguard as ag

PENALTIES = {
    "actdiff": lambda weight: ag.ActDiff(weight, corruption="zero"),
    "actdiff l2": lambda weight: ag.ActDiff(weight, corruption="zero", norm="l2"),
    "actdiff rows": lambda weight: ag.ActDiff(weight, corruption="zero", norm="rows"),
    "gradmask": lambda weight: ag.GradMask(weight),
    "gradmask l1": lambda weight: ag.GradMask(weight, norm="l1"),
    "gradmask nonhealthy": lambda weight: ag.GradMask(weight, score="nonhealthy", norm="squared"),
    "rrr": lambda weight: ag.RRR(weight),
    "rrr target": lambda weight: ag.RRR(weight, score="target", pixels="mean"),
    "rrr projection": lambda weight: ag.RRR(weight, score="projection"),
    "gradcam": lambda weight: ag.GradCAMRRR(weight),
    "gradcam predicted": lambda weight: ag.GradCAMRRR(weight, score="predicted", normalize="minmax", relu=False),
    "hirescam projection": lambda weight: ag.GradCAMRRR(weight, cam="hirescam", score="projection"),
    "input gradient": lambda weight: ag.AttributionPenalty(weight, ag.InputGradient()),
    "gradient times input": lambda weight: ag.AttributionPenalty(weight, ag.GradientTimesInput()),
    "integrated gradients": lambda weight: ag.AttributionPenalty(weight, ag.IntegratedGradients(2)),
    "expected gradients": lambda weight: ag.AttributionPenalty(weight, ag.ExpectedGradients(2)),
}

HEADS = {
    "segmentation": lambda weight: ag.SegmentationHead(2, weight),
    "segmentation of one": lambda weight: ag.SegmentationHead(1, weight, squared=True, over="batch"),
    "reconstruction": lambda weight: ag.ReconstructionHead(weight),
    "reconstruction masked": lambda weight: ag.ReconstructionHead(weight, loss="bce", target="masked"),
}

TERMS = PENALTIES | HEADS


def guarded(names, model, *, weight=1.0, **options):
    """A guard with these terms, each named as it is here."""
    made = {"penalties": [], "heads": []}
    for name in names:
        term = TERMS[name](weight)
        term.name = name
        made["penalties" if name in PENALTIES else "heads"].append(term)
    return ag.wrap(model, **made, **options)
