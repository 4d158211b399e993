"""What a step needs to give the same numbers on one device and on many: sums, slices and gradients over an optional
axis.

Step functions are written once, against an axis name. On one device the axis is None and every function here is the
identity; on several, each device holds its share of the batch and these functions make sums, counts and noise global.

A gradient is right with and without an axis when every device differentiates its own share of a loss that is normalised
by *global* counts, and the gradients are summed (`value_and_global_grad`). Terms that every device computes in full
from global statistics enter as a share of 1/n (`replicated_share`).
"""

import jax
from jax import lax


def psum(tree, axis):
    """Sum over the devices of `axis`; the identity when `axis` is None."""
    return tree if axis is None else lax.psum(tree, axis)


def replicated_share(value, axis):
    """One device's share of a scalar that all devices compute alike."""
    return value if axis is None else value / lax.axis_size(axis)


def local_slice(x, axis):
    """This device's rows of an array [global_batch, ...] that all devices hold."""
    if axis is None:
        return x
    size = x.shape[0] // lax.axis_size(axis)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis) * size, size)


def value_and_global_grad(loss_share, params, axis):
    """Loss, auxiliary outputs and gradient of a loss that is the sum of the devices' shares.

    Args:
      loss_share: params -> (this device's share of the loss, aux); shares are normalised by global counts.
      params: replicated pytree.
    Returns:
      ((loss, aux), gradient): loss and gradient are global; aux is left as the device computed it.
    """
    if axis is not None:
        params = jax.tree.map(lambda p: lax.pcast(p, axis, to="varying"), params)
    (loss, aux), grads = jax.value_and_grad(loss_share, has_aux=True)(params)
    return (psum(loss, axis), aux), psum(grads, axis)
