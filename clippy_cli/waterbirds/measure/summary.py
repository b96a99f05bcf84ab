"""From the answers on single images to what is reported of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clippy_cli.evaluation.metrics.group_accuracy import bootstrap_gap, bootstrap_worst_group, summarize_groups
from clippy_cli.evaluation.result import ModelRecord
from clippy_cli.waterbirds.measure.answers import BirdAnswers
from clippy_cli.waterbirds.measure.result import BirdResult, Gap, GroupScore, Readout


def summarise_birds(
    answers: BirdAnswers,
    model: ModelRecord,
    readout: Readout,
    resolution: int,
    *,
    birds: Sequence[str],
    places: Sequence[str],
    train_counts: Sequence[int],
) -> BirdResult:
    """All figures of one readout; ``birds`` and ``places`` are the names of the two classes and the two places."""
    hits, groups = answers.hits(readout), answers.groups
    summary = summarize_groups(hits, groups)
    names = [f"{bird} on {place}" for bird in birds for place in places]
    scores = [
        GroupScore(bird=birds[group // 2], place=places[group % 2], accuracy=accuracy, count=count)
        for group, (accuracy, count) in enumerate(zip(summary.accuracies, summary.counts, strict=True))
    ]
    gaps = []
    for bird in (0, 1):
        interval = bootstrap_gap(hits, groups, bird)
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        gaps.append(Gap(bird=birds[bird], value=summary.gap(bird), low=low, high=high))
    worst, interval = summary.worst_group, bootstrap_worst_group(hits, groups)
    votes = [answer.patch for answer in answers.answers] if readout == "patch" else []
    return BirdResult(
        model=model,
        readout=readout,
        resolution=resolution,
        images=len(hits),
        groups=(scores[0], scores[1], scores[2], scores[3]),
        worst_group=None if worst is None else names[worst[0]],
        worst=None if worst is None else worst[1],
        worst_low=None if interval is None else interval.low,
        worst_high=None if interval is None else interval.high,
        mean_over_groups=summary.mean_over_groups,
        weighted_mean=summary.weighted_mean(train_counts),
        average=summary.average,
        gaps=(gaps[0], gaps[1]),
        background_share=math.fsum(vote.background_share for vote in votes) / len(votes) if votes else None,
        undecided=sum(vote.fallback for vote in votes) if votes else None,
    )
