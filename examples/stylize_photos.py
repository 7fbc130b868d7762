"""Photos from files to files: by the closed form, and by a network."""

from photostyle import load_network
from photostyle.data import PhotoOptions, load_image
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.optimize import Files
from photostyle.optimize.transfer_colours import transfer_colours

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

network = load_network("dusk")
print(network.name, network.metrics, network(load_image("examples/stream.jpg", 128)).shape)
