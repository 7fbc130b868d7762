"""Score results for pairs of photos; conf/evaluate.yaml lists every argument."""

from conf import entry_point
from data.evaluation import evaluate_results


@entry_point("evaluate")
def main(config):
    evaluation = evaluate_results(
        config.results,
        config.pairs,
        output=config.output,
        baseline=config.baseline,
        size=config.size,
        overwrite=config.overwrite,
    )
    print(evaluation)


if __name__ == "__main__":
    main()
