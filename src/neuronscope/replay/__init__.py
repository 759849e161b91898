"""Ask again and again what a network says when units of one layer are changed, and run only what comes after them.

The network is cut at a layer. What comes before runs once for each batch of images; the tensors that live across the
cut are kept, and only the tail is run anew for every changed unit. There are four ways, from fast to slow, and each
gives the logits of the hook-and-full-forward way within 1e-5 of the largest logit:

* *closed form*: the tail is one linear map after operations on single channels, so the change of the logits is a sum;
* *graph*: torch.fx traced the network; many (image, unit) pairs run through the tail as one batch;
* *modules*: modules that finish before the layer give back what they gave, and everything else runs;
* *full*: the whole network runs with the layer's output replaced.

A cut proves its way on example images before it is used, and falls to the next one where the numbers differ.

Several layers at once, each scaled in many ways, are the business of `replay.stages`.
"""

from neuronscope.replay.cutting import MEMORY, Cut, cut
from neuronscope.replay.live import Live, Way

__all__ = ["MEMORY", "Cut", "Live", "Way", "cut"]
