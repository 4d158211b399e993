"""Own tensorflow-datasets builders for SVHN and CIFAR: download, verify, prepare, without TensorFlow.

The builders of the library itself need TensorFlow to read the archives and to encode PNG. These take its download
manager (resumable cache, official size and SHA-256), read the archive with `archives` and hand over encoded PNG bytes,
written as array_record. This module imports tensorflow_datasets and is itself imported only to download.
"""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from ispf_jax.data import archives
from ispf_jax.data.catalogue import CATALOGUE
from ispf_jax.data.pixels import encode_png


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the three have in common; `SOURCE` is the key of the catalogue."""

    SOURCE = ""
    VERSION = tfds.core.Version("1.0.0")

    @property
    def url_infos(self):
        """The official sizes and checksums; the download manager refuses a file that differs."""
        downloads = CATALOGUE[self.SOURCE].downloads
        return {d.url: UrlInfo(size=d.size, checksum=d.sha256, filename=d.filename) for d in downloads}

    def _info(self):
        official = CATALOGUE[self.SOURCE]
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{official.title}, training and test split.",
            homepage=official.downloads[0].url.rsplit("/", 1)[0],
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=official.num_classes),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        urls = [d.url for d in CATALOGUE[self.SOURCE].downloads]
        data = archives.read(self.SOURCE, [Path(path) for path in dl_manager.download(urls)])
        self.info.features["label"].names = data.class_names
        return {"train": self._generate_examples(data.train), "test": self._generate_examples(data.test)}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(zip(split.images, split.labels)):
            yield i, {"image": encode_png(np.asarray(image)), "label": int(label)}


class IspfSvhn(_Builder):
    SOURCE = "svhn"


class IspfCifar10(_Builder):
    SOURCE = "cifar10"


class IspfCifar100(_Builder):
    SOURCE = "cifar100"


BUILDERS = {builder.SOURCE: builder for builder in (IspfSvhn, IspfCifar10, IspfCifar100)}


def prepare(name: str, data_dir: Path) -> Path:
    """Downloads `name` into `data_dir`/downloads and prepares it; returns the directory of the prepared data.

    Raises what the download manager raises (requests' errors, NonMatchingChecksumError) and UserError for an archive
    that cannot be read.
    """
    builder = BUILDERS[name](data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    builder.download_and_prepare(download_dir=data_dir / "downloads", download_config=config)
    return Path(builder.data_dir)
