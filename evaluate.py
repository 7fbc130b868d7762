"""Score results for pairs of photos; conf/evaluate.yaml lists every argument."""

from conf import entry_point
from data.blind import compare_blind
from data.evaluation import evaluate_results


@entry_point("evaluate")
def main(config):
    inputs = config.results, config.pairs
    options = {"size": config.size, "overwrite": config.overwrite}
    if config.blind is not None:
        options |= {"answers": config.answers, "seed": config.seed}
        print(compare_blind(*inputs, config.blind, config.output or "outputs/blind", **options))
        return
    output = config.output or "outputs/evaluation"
    print(evaluate_results(*inputs, output=output, baseline=config.baseline, **options))


if __name__ == "__main__":
    main()
