"""Is everything in order? What is examined before a long run is trusted to a network, its images and a machine.

Wrong results rarely announce themselves: a network left in training mode, images normalised for another network, or a
layer that is passed by give numbers like any other. Here each such fault has one small check with a `Finding`.

`installation` imports nothing but the standard library until it is called, so that it can speak about an installation
in which PyTorch itself does not load. This file therefore imports nothing at all.
"""
