"""Signal layers: other scanners' findings beside our own, where they are installed and a policy asks for them.

A layer reads the program's bytes and answers with findings of its own ids and of our severities. It adds to what our
rules say and never takes away; one that is missing or fails is a note, never a failure and never silence.
"""

from mayfly.scan.layers.layer import Layer, LayerError, findings_of, open_layer
from mayfly.scan.layers.popular import Popular, popular_packages

__all__ = ["Layer", "LayerError", "Popular", "findings_of", "open_layer", "popular_packages"]
