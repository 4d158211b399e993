"""Every key once, with its unit and meaning. The other files here start from this one and change what differs.

Sources: [paper] Appendix C of "Toward Efficient Data-Free Unlearning" (AAAI 2025, arXiv 2412.13790); [program] the authors' PyTorch
program, where the paper is silent or differs. Lists are written as text with commas, so that any of them can be given on the
command line: `--config.methods=gkt,ispf --config.forget="0;1;2"`.
"""

from ml_collections import ConfigDict

WITH_AUDIT = "original,retrain,unlearn,audit,report"
ALL_METHODS = "dfkd,blockf,gkt,is,pf,ispf,pd,pd_is"


def get_config(variant: str = "") -> ConfigDict:
    """The defaults. `variant`: words after a colon in `--config=file.py:word,word`; see `vary`."""
    c = ConfigDict()

    # What is run. These may be changed between two starts in one work directory; finished work is never repeated.
    c.stages = "original,retrain,unlearn,report"  # of original, retrain, unlearn, audit, report; retrain may be left out by those without time for it
    c.methods = "gkt,ispf"  # of dfkd, blockf, gkt, is, pf, ispf, pd, pd_is; original, retrain and masked_head are always in the table
    c.base = "dfq"  # base of the data-free distillation: dfq or zskt, or both as "dfq,zskt"
    c.forget = "3"  # sets of classes to forget, ids or names (id:5, name:05 where one word could be both): "3"; "1,7" (one set of two); "0;1;2" (three sets); "each" (every class by itself)
    c.seeds = "0"  # one trial per seed: own original, own retrained model, own student
    c.devices = 0  # devices of this machine (of each machine, if there are several) to use; 0: all
    c.spread = "batch"  # what is spread over them: "batch" (every run over all of them) or "jobs" (every device takes runs of its own: for sweeps)
    c.dry_run = False  # only print the jobs, their steps and an estimate of the time
    c.deterministic = False  # the same bits from run to run on GPUs too, slower; CPUs always give them
    c.convolutions = "auto"  # what computes them on a CPU: "auto": Winograd's for wide float32 layers, for others oneDNN's where it is installed (extra "onednn"; up to twice as fast as XLA's); "onednn" or "xla": these for all layers
    c.parts = ConfigDict()  # sub-experiments {name: {keys that differ}}, each in a directory of its own; see `sweep`

    c.data = ConfigDict()
    c.data.name = "digits"  # digits, image_folder, svhn, cifar10, cifar100, synthetic, or none (a classifier of your own and no images)
    c.data.path = ""  # image_folder: directory or tar archive with <split>/<class>/<file>; the split train may be left out where nothing is trained on it
    c.data.data_dir = ""  # where tensorflow-datasets keeps its data; empty: its own default, ~/tensorflow_datasets
    c.data.manual_dir = ""  # where official archives of SVHN or CIFAR lie that were fetched by hand
    c.data.download = True  # whether the network may be used at all
    c.data.cache_dir = ""  # where decoded images are kept; empty: ~/.cache/ispf_jax; "off": nowhere
    c.data.image_size = 0  # pixels; 0: as the images are
    c.data.resize = False  # scale images of another size instead of refusing them
    c.data.channels = 0  # 1 or 3; 0: as the images are (3 if any of them is in colour)
    c.data.classes = 10  # number of classes; of synthetic and none only
    c.data.max_train = 0  # use a class-balanced subset of that many training images; 0: all
    c.data.max_test = 0  # the same for test images
    c.data.mean = "0.5"  # normalisation, one number or one per channel, for images in [0, 1] [program: 0.5 for SVHN]
    c.data.std = "0.5"
    c.data.val_fraction = 0.2  # share of the training images held out to select the original's epoch [program]

    c.model = ConfigDict()
    c.model.name = "allcnn"  # allcnn or resnet18; teacher and student alike
    c.model.width = 1.0  # factor on the number of filters
    c.model.checkpoint = ""  # a classifier that was trained elsewhere, to be the original of every trial: a state_dict (.pt of PyTorch, or .safetensors); see docs/checkpoints.md; empty: the original is trained here
    c.model.dtype = "float32"  # of activations: float32 or bfloat16; parameters, statistics and losses are float32

    c.generator = ConfigDict()
    c.generator.latent_dim = 256  # length of the noise vectors [program]
    c.generator.width = 1.0  # factor on the number of filters

    # Original and retrained model: SGD with momentum, multi-step schedule [paper], best validation epoch kept [program].
    c.train = ConfigDict()
    c.train.epochs = 50
    c.train.batch_size = 256  # [paper]
    c.train.lr = 0.1
    c.train.decay_epochs = "30"  # epochs after which the learning rate is multiplied by decay_factor; empty: never
    c.train.decay_factor = 0.1  # [paper]
    c.train.momentum = 0.9  # [program]
    c.train.weight_decay = 1e-4  # [program]
    c.train.augment = "none"  # none, or crop_flip (crop 32 after padding 4, horizontal flip) [program: CIFAR only]
    c.train.augment_validation = False  # [program: True, its validation split carries the training augmentation]

    # Unlearning: a generator and a fresh student, without data.
    c.distill = ConfigDict()
    c.distill.epochs = 200  # epochs of `loops` loops
    c.distill.loops = (
        5  # loops per epoch; each is generator_steps generator updates, then student_steps student updates [paper]
    )
    c.distill.generator_steps = 1  # [paper]
    c.distill.student_steps = 10  # [paper]
    c.distill.warmup_epochs = 2  # epochs before these, for the generator alone [program; not in the paper]
    c.distill.batch_size = 256  # synthetic images per step [paper]
    c.distill.lr = 0.05  # student, SGD; decays by a cosine
    c.distill.lr_final = 2e-4  # end of the cosine, at most lr [program; not in the paper]
    c.distill.cosine_epochs = (
        200  # its length; the program has 200 even where only 100 epochs are run; 0: as many as epochs
    )
    c.distill.momentum = 0.9  # [program]
    c.distill.weight_decay = 1e-4  # [program]
    c.distill.generator_lr = 1e-3  # Adam [paper]
    c.distill.generator_b1 = 0.5  # Adam's betas [program]
    c.distill.generator_b2 = 0.999
    c.distill.threshold = 0.0  # PreFilter's limit on a forgotten class's probability; 0: 0.1 / classes (0.01 for ten, 0.001 for a hundred [paper])
    c.distill.thresholded_post_filter = False  # False: PostFilter moves every forgotten logit [paper, Eq. 8-9]; True: only those above the threshold [program]
    # Generator loss weights of the dfq base. The zskt base uses the adversarial term alone.
    c.distill.weight_adv = 1.0  # [program]
    c.distill.weight_bn = 1.0
    c.distill.weight_oh = 1.0
    c.distill.weight_balance = 1.0
    c.distill.weight_act = 0.0

    # Evaluation on test images. It selects nothing that is reported as the headline ("last"); the best epoch on test images, which
    # the program reports, becomes a row of its own.
    c.evaluate = ConfigDict()
    c.evaluate.every = 1  # epochs of distillation between two looks at the test images; 0: only at the end
    c.evaluate.batch_size = 500  # images per forward pass

    # The audit of what is left of the forgotten classes: stage "audit", see docs/audit.md. Like the stages it may change between starts.
    c.audit = ConfigDict()
    c.audit.metrics = "accuracy,mia1,mia2,relearn,features,divergence,lira"
    c.audit.mia1_protocol = "salun"  # which images MIA-I uses: salun or unsc; the paper does not say
    c.audit.shadows = 5  # shadow models of MIA-II, each trained like the original on half of the data; 0: no MIA-II
    c.audit.lira_shadows = (
        0  # shadow models of the per-example attack LiRA, an even number from 4, 16 or more to be useful; 0: none
    )
    c.audit.relearn_steps = 0  # steps of every relearning curve; 0: ten epochs of the training split
    c.audit.relearn_batch = 256
    c.audit.relearn_alpha = 0.05  # relearned is (1 - alpha) times the original's accuracy (anamnesis index)
    c.audit.shots = "1,5,20"  # images per class of the few-shot relearning curves
    c.audit.layers = 3  # layers whose features are probed: the penultimate and earlier ones, evenly
    c.audit.train_images = 5000  # training images, class-balanced, that probes and neighbours learn from
    c.audit.barrier_points = 11  # points between model and original on the line of linear interpolation; 0: no barrier
    c.audit.barrier_images = 1000  # test images on which the loss along it is taken
    c.audit.synthetic_images = 2048  # synthetic images for the baseline that retrains the original's head, and among which duplicates are counted
    c.audit.embedding_images = 400  # images in the pictures of features, real and synthetic ones of every student, test images of every model; 0: no pictures

    # How a run is kept and shown; free to change between two starts.
    c.export = "auto"  # write finished networks as files for other programs too: "pt" (PyTorch), "safetensors", or both; "auto": in the format of model.checkpoint, if there is one; empty: no
    c.checkpoint_seconds = (
        60.0  # time between two checkpoints of a running stage; every stage is saved at its end in any case
    )
    c.progress_seconds = 10.0  # time between two lines of progress where the output is no terminal
    c.tensorboard = True  # write event files if tensorboardX is installed (extra "tensorboard")
    c.compilation_cache = "auto"  # directory in which JAX keeps compiled programs for the next start; "auto": in ~/.cache/ispf_jax; "off": none
    return vary(c, variant)


def sweep(parts: dict[str, ConfigDict], variant: str = "", **common) -> ConfigDict:
    """One configuration out of several: what all `parts` share can be set once, what differs is set per part.

    Keys in which a part differs from the first are changed on the command line as `--config.parts.<name>.<key>`, all others as `--config.<key>`.

    Args:
      variant: as of the parts; `smoke` leaves one class and one trial of the sweep.
      common: keys to set in all parts, such as `methods` or `forget`.
    """
    if "smoke" in variant.split(","):
        common |= {"forget": "3", "seeds": "0"}
    for config in parts.values():
        config.update(common)
    c = next(iter(parts.values())).copy_and_resolve_references()
    c.parts = ConfigDict({name: _difference(config.to_dict(), c.to_dict()) for name, config in parts.items()})
    return c


def _difference(config: dict, base: dict) -> dict:
    """The nested keys of `config` whose values are others than in `base`."""
    return {k: _difference(v, base[k]) if isinstance(v, dict) else v for k, v in config.items() if v != base[k]}


def vary(c: ConfigDict, variant: str) -> ConfigDict:
    """Apply the words of a config argument: `resnet18` (or `allcnn`), `smoke`.

    `smoke` runs the whole pipeline in under a minute on two cores: synthetic images of the configuration's size, one-eighth width, few steps.
    """
    for word in filter(None, variant.split(",")):
        if word in ("allcnn", "resnet18"):
            c.model.name = word
        elif word == "smoke":
            smoke(c)
        else:
            raise ValueError(f"unknown variant {word!r}; known are allcnn, resnet18 and smoke")
    return c


def smoke(c: ConfigDict):
    """Shrink a configuration to a few seconds per stage; the shape of the job stays, with the first of its forget sets."""
    c.forget = c.forget.split(";")[0]
    c.data.update(
        name="synthetic", path="", max_train=max(400, 4 * c.data.classes), max_test=max(100, 2 * c.data.classes)
    )
    if not c.data.image_size:
        c.data.image_size, c.data.channels = 32, 3
    c.data.cache_dir = "off"
    c.model.width = c.generator.width = 0.0625
    c.train.update(epochs=2, batch_size=64, decay_epochs="1")
    c.distill.update(epochs=2, loops=1, student_steps=2, warmup_epochs=1, batch_size=32)
    c.audit.update(
        shadows=1,
        relearn_steps=2,
        relearn_batch=32,
        shots="1",
        layers=1,
        barrier_points=3,
        barrier_images=50,
        synthetic_images=64,
        embedding_images=50,
    )
