"""Files of other programs, written for tests without those programs."""

import pickle
import struct

import numpy as np

from ispf_jax.files.pickles import literal, named, tuple_of

BEGIN, NO_HOOKS = pickle.PROTO + b"\x02", named("collections OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def tensor(key, value, view=pickle.NONE, count=None):
    """Opcodes of a tensor that refers to the storage `key`, as torch.save wrote them before PyTorch 1.6."""
    words = [literal("storage"), named("torch FloatStorage"), literal(key), literal("cpu")]
    storage = tuple_of([*words, literal(count or value.size), view]) + pickle.BINPERSID
    strides = [s // value.itemsize for s in value.strides]
    shape, steps = (tuple_of(map(literal, numbers)) for numbers in (value.shape, strides))
    arguments = tuple_of([storage, literal(0), shape, steps, pickle.NEWFALSE, NO_HOOKS])
    return named("torch._utils _rebuild_tensor_v2") + arguments + pickle.REDUCE


def dictionary(entries):
    """Opcodes of {name: what the opcodes make}."""
    items = b"".join(literal(name) + opcodes for name, opcodes in entries.items())
    return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS


def legacy(saved, storages, little=True):
    """A file of torch.save before PyTorch 1.6: `saved` are opcodes, `storages` arrays by key."""
    machine = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    parts += [BEGIN + saved + pickle.STOP, pickle.dumps(list(storages), 2)]
    data = (struct.pack("<q", value.size) + value.tobytes() for value in storages.values())
    return b"".join(parts) + b"".join(data)


def legacy_state_dict(tensors):
    """Such a file of float32 tensors."""
    values = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    keys = {name: str(1000 + n) for n, name in enumerate(values)}
    saved = dictionary({name: tensor(keys[name], value) for name, value in values.items()})
    return legacy(saved, {keys[name]: value for name, value in values.items()})


def module(tensors, name="net Net"):
    """Opcodes of a module of PyTorch that was pickled whole, which holds these opcodes of tensors by dotted names."""
    own = {key: opcodes for key, opcodes in tensors.items() if "." not in key}
    inner = dict.fromkeys(key.partition(".")[0] for key in tensors if "." in key)
    children = {
        child: module({k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{child}.")})
        for child in inner
    }
    buffers = {key: own.pop(key) for key in list(own) if key.startswith("running_")}
    parts = {"training": pickle.NEWFALSE, "_parameters": dictionary(own), "_buffers": dictionary(buffers)}
    state = dictionary(parts | {"_modules": dictionary(children)})
    return named(name) + pickle.EMPTY_TUPLE + pickle.NEWOBJ + state + pickle.BUILD
