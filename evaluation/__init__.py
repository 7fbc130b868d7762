"""Results measured against pairs of photos, and compared blind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blind": ["compare_blind", "score_answers"],
        "pairs": ["Pair", "find_pairs"],
        "scores": ["Evaluation", "Scores"],
    },
)
