"""What is known about SVHN, CIFAR-10 and CIFAR-100: sizes, archives, addresses and official checksums."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """A file on the official site. sha256 and size [bytes] are those registered by tensorflow-datasets 4.9.10."""

    url: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Official:
    """One data set.

    prepared: names under which tensorflow-datasets data may lie, with the major version that is understood.
    downloads: what is fetched. manual: groups of file names of which one, complete, is enough in the manual directory.
    counts: images in the complete official training and test split.
    """

    title: str
    num_classes: int
    counts: tuple[int, int]
    prepared: tuple[tuple[str, int], ...]
    downloads: tuple[Download, ...]
    manual: tuple[tuple[str, ...], ...]


_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"

CATALOGUE = {
    # Without the 531,131 easier "extra" images (1.3 GB), which the method does not use.
    "svhn": Official(
        "SVHN",
        10,
        (73257, 26032),
        prepared=(("svhn_cropped", 3), ("ispf_svhn", 1)),
        downloads=(
            Download(
                _SVHN + "train_32x32.mat", 182040794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
            ),
            Download(
                _SVHN + "test_32x32.mat", 64275384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
            ),
        ),
        manual=(("train_32x32.mat", "test_32x32.mat"),),
    ),
    "cifar10": Official(
        "CIFAR-10",
        10,
        (50000, 10000),
        prepared=(("cifar10", 3), ("ispf_cifar10", 1)),
        downloads=(
            Download(
                _CIFAR + "cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        manual=(("cifar-10-python.tar.gz",), ("cifar-10-binary.tar.gz",)),
    ),
    "cifar100": Official(
        "CIFAR-100",
        100,
        (50000, 10000),
        prepared=(("cifar100", 3), ("ispf_cifar100", 1)),
        downloads=(
            Download(
                _CIFAR + "cifar-100-binary.tar.gz",
                168513733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        manual=(("cifar-100-python.tar.gz",), ("cifar-100-binary.tar.gz",)),
    ),
}
