"""Photos from files to files: by the closed form, and by networks of one style and of any."""

from pathlib import Path

from photostyle import load_network
from photostyle.data import Files, PhotoOptions, load_image
from photostyle.feedforward import StyleSource, load_style
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.optimize.transfer_colours import transfer_colours

Path("outputs").mkdir(exist_ok=True)

options = PhotoOptions(size=256, strength=0.8, overwrite=True)
print(
    transfer_colours(
        Files(
            content="examples/stream.jpg",
            style="examples/autumn.jpg",
            output="outputs/stream_in_autumn.jpg",
            options=options,
        )
    )
)
print(stylize_photos("examples/p*.jpg", "dusk", "outputs/at_dusk", options=options))

# Any style: read once, then kept in a file for more photos.
style = StyleSource("examples/autumn.jpg", save_style="outputs/autumn.safetensors")
folder = "outputs/in_autumn"
print(stylize_photos("examples/p*.jpg", output=folder, style=style, options=options))
autumn = load_style("outputs/autumn.safetensors")
result = load_network("universal").with_style(autumn)(load_image("examples/stream.jpg", 128))
print("by the style's file:", tuple(result.shape))

network = load_network("dusk")
print(network.name, network.metrics, network(load_image("examples/stream.jpg", 128)).shape)
