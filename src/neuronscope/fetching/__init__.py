"""Public data and weights by name: one table says where they are, one function brings them here, whole or not at all.

It leaves out choosing a licence for the user (the table names it, with its page) and reading what was fetched: that is
`load_data` and `load_model`.
"""

from neuronscope.fetching.fetch import Fetched, FileState, fetch
from neuronscope.fetching.items import FETCHABLE, Fetchable, RemoteFile, torchvision_weights

__all__ = ["FETCHABLE", "Fetchable", "Fetched", "FileState", "RemoteFile", "fetch", "torchvision_weights"]
