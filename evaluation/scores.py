"""What is measured, and the scores of every pair and method as numbers, wins and text."""

from dataclasses import astuple, dataclass

import numpy as np

from photostyle.ops.metrics import MATTING_EPSILON, STYLE_LAYERS

UNTOUCHED = "untouched"
GLOBAL_TRANSFER = "global colour transfer"
COLOUR_TRANSFER = "colour transfer"
RESULTS = "results"

METRICS = {
    "style_distance": "‖G(y) − G(s)‖ / ‖G(s)‖ (Frobenius) of the Gram matrices under each mask, "
    f"mean over the masks by area and over {', '.join(STYLE_LAYERS)} of VGG-16; lower is better",
    "edge_ssim": "SSIM of the Sobel magnitudes of luma of content and image, Gaussian window of "
    "σ = 1.5; 1: all edges are kept",
    "matting_loss": "pᵀLp per pixel and channel, L the content's matting Laplacian at radius 1, "
    f"ε = {MATTING_EPSILON:g}; lower is closer to a photo",
    "flat_roughness": "RMS, in levels of 255, of what a Gaussian of σ = 2 takes away, over the "
    "tenth of the content's pixels around which it varies least: noise, banding; lower is better",
    "colour_map_residual": "RMS distance, in ΔE*ab, to the nearest smooth map of the content's "
    "colours under each mask: haze, glows, blotches; lower is better, an untouched photo has "
    "next to none",
    "sharpness": "share of luma's detail that is finer than a Gaussian of σ = 1 pixel, over the "
    "content's; below 1 the image is blurred, which lowers style distance by itself",
}

TITLES = ("style distance", "edge SSIM", "matting loss", "roughness", "residual", "sharpness")


@dataclass(frozen=True)
class Scores:
    """What `METRICS` defines, of one image or averaged over pairs."""

    style_distance: float
    edge_ssim: float
    matting_loss: float
    flat_roughness: float
    colour_map_residual: float
    sharpness: float

    def formatted(self) -> tuple[str, ...]:
        """The numbers as a person reads them."""
        return (
            f"{self.style_distance:.3f}",
            f"{self.edge_ssim:.3f}",
            f"{self.matting_loss:.2e}",
            f"{self.flat_roughness:.2f}",
            f"{self.colour_map_residual:.1f}",
            f"{self.sharpness:.2f}",
        )


@dataclass(frozen=True)
class Evaluation:
    """The scores of every pair and method.

    Attributes:
        scores: by the pair's name, then by method; the same methods for every pair, in the same
            order, and at least one pair.
        baseline: the method that the results are counted against, if any.
    """

    scores: dict[str, dict[str, Scores]]
    baseline: str | None = None

    @property
    def wins(self) -> dict[str, int]:
        """In how many pairs the results are better than the baseline, by figure.

        ``all_three`` counts the pairs in which style distance, edge SSIM and residual are. Empty
        without a baseline.
        """
        if self.baseline is None:
            return {}
        pairs = [(pair[RESULTS], pair[self.baseline]) for pair in self.scores.values()]
        style = [ours.style_distance < theirs.style_distance for ours, theirs in pairs]
        edges = [ours.edge_ssim > theirs.edge_ssim for ours, theirs in pairs]
        smooth = [ours.flat_roughness < theirs.flat_roughness for ours, theirs in pairs]
        graded = [ours.colour_map_residual < theirs.colour_map_residual for ours, theirs in pairs]
        return {
            "style_distance": sum(style),
            "edge_ssim": sum(edges),
            "colour_map_residual": sum(graded),
            "all_three": sum(map(all, zip(style, edges, graded, strict=True))),
            "flat_roughness": sum(smooth),
        }

    @property
    def means(self) -> dict[str, Scores]:
        """The mean over the pairs, by method."""
        methods = next(iter(self.scores.values()))
        columns = {
            method: np.array([astuple(pair[method]) for pair in self.scores.values()])
            for method in methods
        }
        return {
            method: Scores(*map(float, values.mean(axis=0))) for method, values in columns.items()
        }

    def __str__(self) -> str:
        """A text table: a block for each pair, one for the mean, and the wins."""
        lines = [("pair", "method", *TITLES)]
        for pair, methods in {**self.scores, f"mean of {len(self.scores)}": self.means}.items():
            # The name stands beside the first of its methods only.
            names = [pair] + [""] * (len(methods) - 1)
            lines += [
                (name, method, *scores.formatted())
                for name, (method, scores) in zip(names, methods.items(), strict=True)
            ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pads = (str.ljust, str.ljust, *[str.rjust] * len(TITLES))
        text = "\n".join(
            "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True))
            for line in lines
        )
        if self.baseline is None:
            return text
        wins = self.wins
        return (
            f"{text}\n\n{RESULTS} better than {self.baseline}, of {len(self.scores)} pairs: style "
            f"distance {wins['style_distance']}, edge SSIM {wins['edge_ssim']}, residual "
            f"{wins['colour_map_residual']}, all three {wins['all_three']}; roughness "
            f"{wins['flat_roughness']}"
        )
