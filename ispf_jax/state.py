"""The pytrees that training carries: arrays only, no functions, no configuration."""

import zlib
from numbers import Integral

import flax.struct
import jax
import jax.numpy as jnp

from ispf_jax.errors import ArgumentError
from ispf_jax.replay import Memory


@flax.struct.dataclass
class NetState:
    """A network in training: parameters, batch statistics and its optimiser's state."""

    params: dict
    batch_stats: dict
    opt_state: tuple

    @property
    def variables(self) -> dict:
        """What `module.apply` takes: {"params", "batch_stats"}."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class DistillState:
    """Everything an unlearning run needs to go on bit for bit: both networks, the key of the run, the epochs completed
    and, with replay, the earlier images."""

    student: NetState
    generator: NetState
    key: jax.Array
    epoch: jax.Array
    memory: Memory | None = None


@flax.struct.dataclass
class TrainState:
    """The same for supervised training."""

    net: NetState
    key: jax.Array
    epoch: jax.Array


def new_net(variables, optimizer) -> NetState:
    """A network at the start of its training."""
    return NetState(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))


def select(condition, new, old):
    """`new` where the scalar condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def random_stream(seed: int, name: str) -> jax.Array:
    """The key of a named random stream of a trial: streams of other names or seeds are independent.

    Raises:
      ArgumentError: the seed is not a whole number from 0 to 4294967295.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise ArgumentError("seed", f"={seed!r} must be a whole number from 0 to 4294967295.")
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def split_seed(seed: int, stream: str) -> int:
    """The seed of the validation split of the supervised run that has this random stream: from the first of its four
    keys."""
    return int(jax.random.bits(jax.random.split(random_stream(seed, stream), 4)[0], dtype=jnp.uint32))
