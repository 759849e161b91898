"""The table of what can be fetched by name: addresses, checksums, sizes, licences, written out.

To add a row is to add data, not code. Checksums are those that upstream publishes: MD5 and address of the data sets as
in torchvision's `datasets`, their SHA-256 as in Keras (CIFAR-10) and in other projects that pin the same files; weights
of torchvision carry the first 8 digits of their SHA-256 in the file name, and all 64 stand here where they are known.
Of Broden and Places365 upstream publishes none: the two MD5 here are those that another project pins, the rest unknown.
A size is that of the file to the byte, or left out: `about` is then what torchvision says in MiB, to three digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuronscope.errors import InputError, UnknownName, nearest

Unpack = Literal["none", "tar", "zip"]

_TORCHVISION = "https://download.pytorch.org/models/"
_HEX = re.compile(r"[0-9a-f]+")
_SHORTEST_PREFIX = 8  # hexadecimal digits: what torchvision writes into its file names
_FULL = {"sha256": 64, "md5": 32}  # hexadecimal digits of a whole checksum


@dataclass(frozen=True)
class RemoteFile:
    """One file that lies somewhere on the internet.

    Attributes:
        name: what it is called here, without folders.
        urls: where it can be had, in the order to try.
        sha256: its SHA-256 in hexadecimal digits, or the first 8 or more of them; it goes before `md5`.
        md5: its MD5, where upstream publishes nothing better.
        size: bytes; None where upstream does not say exactly.
        about: bytes where `size` is None, as upstream rounds them: to plan with, never to check against.
        unpack: what kind of archive it is, if its content is wanted rather than itself.
        unpack_limit: the most bytes that its content may take.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    about: int | None = None
    unpack: Unpack = "none"
    unpack_limit: int = 0

    def __post_init__(self) -> None:
        """Refuse rows that could write elsewhere, or that nothing could be checked against.

        Raises:
            InputError: the name is a path, there is no address, or a checksum is none.
        """
        if self.name in ("", ".", "..") or re.search(r"[/\\:\0]", self.name):
            message = f"'{self.name}' cannot be the name of a fetched file: expected a name without folders"
            raise InputError(message)
        if not self.urls or not all(url.startswith(("https://", "http://")) for url in self.urls):
            message = f"{self.name} has the addresses {list(self.urls)}: expected one or more, beginning with https://"
            raise InputError(message)
        for kind, shortest in (("sha256", _SHORTEST_PREFIX), ("md5", _FULL["md5"])):
            given = getattr(self, kind)
            if given is not None and not (_HEX.fullmatch(given) and shortest <= len(given) <= _FULL[kind]):
                message = f"{self.name} has the {kind} '{given}': expected {shortest} to {_FULL[kind]} digits 0-9, a-f"
                raise InputError(message)
        if self.unpack != "none" and self.unpack_limit < 1:
            message = f"{self.name} is to be unpacked, but has no unpack_limit: say how many bytes it may become"
            raise InputError(message)

    @property
    def checksum(self) -> tuple[Literal["sha256", "md5"], str] | None:
        """The checksum to go by, None where there is none."""
        if self.sha256 is not None:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 is not None else None


@dataclass(frozen=True)
class Fetchable:
    """Something to fetch: a few files with what one should know about them.

    Attributes:
        name: what it is asked for by.
        what: what it is, in one line.
        kind: `data` goes to `data/NAME`, `weights` to the folder where torch looks for them.
        files: what it consists of.
        licence: under which terms it may be used, in a few words.
        page: where these terms, or the people who publish it, are found.
        then: the command to go on with; `{folder}` and `{file}` stand for what was fetched.
        account: whose credentials it takes.
    """

    name: str
    what: str
    kind: Literal["data", "weights"]
    files: tuple[RemoteFile, ...]
    licence: str
    page: str
    then: str
    account: Literal["none", "kaggle"] = "none"

    def folder(self) -> Path:
        """Where it goes unless one says otherwise."""
        if self.kind == "data":
            return Path("data") / self.name
        import torch.hub

        return Path(torch.hub.get_dir()) / "checkpoints"


def find(name: str) -> Fetchable:
    """The row of a name, or the one whose only file is called so.

    Raises:
        UnknownName: there is none; the message offers the nearest.

    Example:
        >>> find("resnet18-5c106cde.pth").name
        'resnet18'
    """
    by_file = {item.files[0].name: item for item in FETCHABLE.values() if len(item.files) == 1}
    found = FETCHABLE.get(name) or by_file.get(name)
    if found is None:
        known = [*FETCHABLE, *by_file]
        message = (
            f"'{name}' cannot be fetched: expected one of {', '.join(FETCHABLE)}, or the file name of weights."
            f"{nearest(name, known)} List them with: neuronscope fetch --list"
        )
        raise UnknownName(message)
    return found


def torchvision_weights(url: str, *, model: str, about: int | None = None) -> Fetchable:
    """The row for an address of torchvision's: the one of the table, else one made of what the address says.

    Args:
        url: where the weights are; the file name ends in the first digits of their SHA-256, as in `-f37072fd.pth`.
        model: the architecture they are for.
        about: bytes, roughly.

    Raises:
        InputError: the file name has no checksum.

    Example:
        >>> url = "https://download.pytorch.org/models/resnet34-b627a593.pth"
        >>> torchvision_weights(url, model="resnet34").files[0].checksum
        ('sha256', 'b627a593')
    """
    known = (item for item in FETCHABLE.values() if item.kind == "weights" and url in item.files[0].urls)
    return next(known, None) or _weights(model, f"{model}, weights of torchvision", url, model=model, about=about)


def _weights(
    name: str,
    what: str,
    url: str,
    *,
    model: str,
    size: int | None = None,
    about: int | None = None,
    sha256: str | None = None,
) -> Fetchable:
    """A row of torchvision's weights; without a longer one, the checksum is the part that stands in the file name."""
    file = url.rpartition("/")[2]
    in_name = file.rpartition(".")[0].rpartition("-")[2]
    return Fetchable(
        name=name,
        what=what,
        kind="weights",
        files=(RemoteFile(file, (url,), sha256=sha256 or in_name, size=size, about=about),),
        licence="none stated; torchvision: the terms of the training data may apply (ImageNet: research)",
        page="https://pytorch.org/vision/stable/models.html",
        then=f"neuronscope run layers --model torchvision:{model} --weights {{file}} --data imagenet:PATH",
    )


def _idx(
    mirrors: tuple[str, ...], rows: tuple[tuple[str, int, str, str], ...]
) -> tuple[RemoteFile, ...]:  # (name, bytes, SHA-256, MD5)
    return tuple(
        RemoteFile(f"{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in mirrors), sha256=sha256, md5=md5, size=size)
        for name, size, sha256, md5 in rows
    )


def _broden(name: str, side: int) -> Fetchable:
    """Broden with images of a side. The server speaks HTTP for sure; HTTPS is tried first. No checksum is published."""
    file, folder = f"broden1_{side}.zip", f"{{folder}}/broden1_{side}"
    return Fetchable(
        name=name,
        what=f"Broden, images of {side} pixels: 63,305 with 1,197 concepts (Bau et al. 2017)",
        kind="data",
        files=(
            RemoteFile(
                file,
                tuple(f"{scheme}://netdissect.csail.mit.edu/data/{file}" for scheme in ("https", "http")),
                unpack="zip",
                unpack_limit=40_000_000_000,
            ),
        ),
        licence="none known for the whole; it holds ADE20K, DTD, OpenSurfaces and Pascal, each under its own terms",
        page="http://netdissect.csail.mit.edu",
        then=f"neuronscope concepts check broden:{folder} --limit 500",
    )


_KAGGLE_IMAGENET = "imagenet-object-localization-challenge"

_ROWS = (
    Fetchable(
        name="mnist",
        what="MNIST: 70,000 handwritten digits, 28x28 grey (LeCun et al. 1998)",
        kind="data",
        files=_idx(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
            (
                (
                    "train-images-idx3-ubyte",
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                ),
                (
                    "train-labels-idx1-ubyte",
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                ),
                (
                    "t10k-images-idx3-ubyte",
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "9fb629c4189551a2d022fa330f9573f3",
                ),
                (
                    "t10k-labels-idx1-ubyte",
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
            ),
        ),
        licence="CC BY-SA 3.0 (copyright Y. LeCun, C. Cortes) as Keras states it; no text of theirs was found",
        page="https://keras.io/api/datasets/mnist/",
        then="neuronscope train --data mnist:{folder} --out runs/mnist",
    ),
    Fetchable(
        name="fashion-mnist",
        what="Fashion-MNIST: 70,000 pictures of clothes, 28x28 grey (Xiao et al. 2017)",
        kind="data",
        files=_idx(
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            (
                (
                    "train-images-idx3-ubyte",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                ),
                (
                    "train-labels-idx1-ubyte",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "25c81989df183df01b3e8a0aad5dffbe",
                ),
                (
                    "t10k-images-idx3-ubyte",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "bef4ecab320f06d8554ea6380940ec79",
                ),
                (
                    "t10k-labels-idx1-ubyte",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                ),
            ),
        ),
        licence="MIT",
        page="https://github.com/zalandoresearch/fashion-mnist",
        then="neuronscope train --data fashion-mnist:{folder} --out runs/fashion-mnist",
    ),
    Fetchable(
        name="cifar10",
        what="CIFAR-10: 60,000 colour photographs of 10 kinds of things, 32x32 (Krizhevsky 2009)",
        kind="data",
        files=(
            RemoteFile(
                "cifar-10-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                md5="c58f30108f718f92721af3b95e74349a",
                size=170_498_071,
                unpack="tar",
                unpack_limit=200_000_000,  # 60,000 images of 3,073 bytes are 184 MB
            ),
        ),
        licence="none stated; its page asks to cite Krizhevsky 2009",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        then="neuronscope train --data cifar10:{folder} --out runs/cifar10",
    ),
    Fetchable(
        name="imagenet",
        what="ImageNet (ILSVRC-2012): 1.3 million photographs of 1,000 classes; about 167 GB, unpacked as much again",
        kind="data",
        files=(
            RemoteFile(
                f"{_KAGGLE_IMAGENET}.zip",
                (f"https://www.kaggle.com/api/v1/competitions/data/download-all/{_KAGGLE_IMAGENET}",),
                unpack="zip",
                unpack_limit=400_000_000_000,
            ),
        ),
        licence="ImageNet's terms of access: research and education, not commercial",
        page=f"https://www.kaggle.com/competitions/{_KAGGLE_IMAGENET}",
        then="neuronscope data sort-imagenet {folder}/ILSVRC/Data/CLS-LOC/val {folder}/LOC_val_solution.csv",
        account="kaggle",
    ),
    _broden("broden", 224),
    _broden("broden-227", 227),
    _broden("broden-384", 384),
    Fetchable(
        name="places365-resnet18",
        what="ResNet-18 trained on the 365 scenes of Places365 (Zhou et al. 2017)",
        kind="weights",
        files=(
            RemoteFile(
                "resnet18_places365.pth.tar",
                tuple(
                    f"{scheme}://places2.csail.mit.edu/models_places365/resnet18_places365.pth.tar"
                    for scheme in ("https", "http")
                ),
            ),
        ),
        licence="CC BY, as the page of its publishers says of all their networks",
        page="https://github.com/CSAILVision/places365",
        then="neuronscope run concepts --model torchvision:resnet18 --weights {file} "
        "--concepts broden:data/broden/broden1_224 --layers layer4",
    ),
    _weights(
        "alexnet",
        "AlexNet, torchvision's older file",
        f"{_TORCHVISION}alexnet-owt-4df8aa71.pth",
        model="alexnet",
        size=244_418_560,
    ),
    _weights(
        "vgg11",
        "VGG-11, torchvision's older file",
        f"{_TORCHVISION}vgg11-bbd30ac9.pth",
        model="vgg11",
        size=531_456_000,
    ),
    _weights(
        "resnet18",
        "ResNet-18, torchvision's older file",
        f"{_TORCHVISION}resnet18-5c106cde.pth",
        model="resnet18",
        size=46_827_520,
        sha256="5c106cde386e87d4033832f2996f5493238eda96ccf559d1d62760c4de0613f8",
    ),
    _weights(
        "alexnet-v1",
        "AlexNet, torchvision's IMAGENET1K_V1",
        f"{_TORCHVISION}alexnet-owt-7be5be79.pth",
        model="alexnet",
        size=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    _weights(
        "vgg11-v1",
        "VGG-11, torchvision's IMAGENET1K_V1",
        f"{_TORCHVISION}vgg11-8a719046.pth",
        model="vgg11",
        about=531_460_000,
    ),
    _weights(
        "resnet18-v1",
        "ResNet-18, torchvision's IMAGENET1K_V1",
        f"{_TORCHVISION}resnet18-f37072fd.pth",
        model="resnet18",
        size=46_830_571,
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    _weights(
        "densenet121-v1",
        "DenseNet-121, torchvision's IMAGENET1K_V1",
        f"{_TORCHVISION}densenet121-a639ec97.pth",
        model="densenet121",
        size=32_342_954,
        sha256="a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
    ),
    _weights(
        "squeezenet1_1-v1",
        "SqueezeNet 1.1, torchvision's IMAGENET1K_V1",
        f"{_TORCHVISION}squeezenet1_1-b8a52dc0.pth",
        model="squeezenet1_1",
        size=4_958_839,
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
)

FETCHABLE: dict[str, Fetchable] = {item.name: item for item in _ROWS}
"""Name -> what can be fetched by it."""
