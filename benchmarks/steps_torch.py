"""One generator, student and supervised step in PyTorch: the opponent, written from the definitions of
`ispf_jax.steps`.

It does no work it does not need, except where an option says so: gradients are taken only for the network that is
trained, and the teacher's batch-norm inputs are watched only in the generator step.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.networks_torch import CLASSIFIERS, Generator, load
from ispf_jax.methods import Method


@dataclass(frozen=True)
class Style:
    """How PyTorch runs: memory layout of images, whether networks are compiled, teacher passes per student step."""

    channels_last: bool = False
    compiled: bool = False
    teacher_passes: int = 1


STYLES = {
    "authors' way": Style(teacher_passes=2),
    "eager NCHW": Style(),
    "eager channels_last": Style(channels_last=True),
    "compiled NCHW": Style(compiled=True),
    "compiled channels_last": Style(channels_last=True, compiled=True),
}


class TorchSteps:
    """State and steps of one run; arguments and results are PyTorch tensors on `device`.

    Args:
      shapes: size, channels, num_classes, width, generator_width of the networks.
      variables: {"teacher", "student", "generator"} Flax variables to start from.
      dtype: "float32" or "bfloat16" (autocast; weights, statistics and losses stay float32).
    """

    def __init__(
        self, model, shapes, variables, method: Method, forget, threshold, mean, std, style: Style, device, dtype
    ):
        self.method, self.threshold, self.style, self.device = method, threshold, style, device
        self.forget = torch.zeros(shapes["num_classes"], device=device)
        self.forget[list(forget)] = 1.0
        self.mean, self.std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (mean, std))
        self.autocast = (
            (lambda: torch.autocast(device, torch.bfloat16)) if dtype == "bfloat16" else contextlib.nullcontext
        )
        self.format = torch.channels_last if style.channels_last else torch.contiguous_format

        def classifier(name):
            net = CLASSIFIERS[model](shapes["channels"], shapes["num_classes"], shapes["width"])
            return load(net, variables[name]).to(device, memory_format=self.format)

        generator = Generator(
            shapes["size"], shapes["channels"], shapes["latent"], shapes["generator_width"], self.format
        )
        self.teacher, self.student = classifier("teacher").eval().requires_grad_(False), classifier("student")
        self.watching_teacher = classifier("teacher").eval().requires_grad_(False)
        self.generator = load(generator, variables["generator"]).to(device, memory_format=self.format)
        self.moments = []
        self.norms = [m for m in self.watching_teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in self.norms:
            norm.register_forward_hook(
                lambda _, inputs, __: self.moments.append(torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0))
            )
        self.run = {n: getattr(self, n) for n in ("teacher", "student", "generator", "watching_teacher")}
        if style.compiled:
            self.run = {n: torch.compile(net) for n, net in self.run.items()}
        self.student_sgd = torch.optim.SGD(self.student.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), 1e-3, betas=(0.5, 0.999))

    def images(self, noise):
        with self.autocast():
            return (self.run["generator"](noise) - self.mean) / self.std

    def classify(self, name, images):
        with self.autocast():
            logits, features = self.run[name](images.contiguous(memory_format=self.format))
        return logits.float(), features

    def generator_step(self, noise):
        """Returns the loss before the update."""
        self.generator.train()
        self.student.eval()
        images = self.images(noise)
        self.moments.clear()
        t, _ = self.classify("watching_teacher", images)
        s, _ = self.classify("student", images)
        log_t = F.log_softmax(t, 1)
        terms = log_t.exp() * (log_t - F.log_softmax(s, 1))
        sign = 2 * self.forget - 1 if self.method.inhibit else -1.0
        mean_probability = log_t.exp().mean(0)
        loss = (
            (sign * terms).sum(1).mean()
            + F.cross_entropy(t, t.argmax(1))
            + (mean_probability * mean_probability.log()).sum()
        )
        for norm, (var, mean) in zip(self.norms, self.moments, strict=True):
            loss = loss + (norm.running_var - var).norm() + (norm.running_mean - mean).norm()
        self.generator_adam.zero_grad()
        loss.backward(inputs=list(self.generator.parameters()))
        self.generator_adam.step()
        return loss.detach()

    def student_step(self, noise):
        """Returns the loss before the update; a tensor of size 0 when no sample is kept."""
        self.generator.eval()
        self.student.train()
        with torch.no_grad():
            images = self.images(noise)
            for _ in range(self.style.teacher_passes):
                t, _ = self.classify("teacher", images)
            images, t = self.kept(images, t)
            target = F.softmax(self.target(t), 1)
        if not len(images):
            return t
        s, _ = self.classify("student", images)
        loss = F.kl_div(F.log_softmax(s, 1), target, reduction="batchmean")
        self.student_sgd.zero_grad()
        loss.backward()
        self.student_sgd.step()
        return loss.detach()

    def supervised_step(self, images, labels):
        """Returns the mean cross entropy before the update."""
        self.student.train()
        loss = F.cross_entropy(self.classify("student", images)[0], labels)
        self.student_sgd.zero_grad()
        loss.backward()
        self.student_sgd.step()
        return loss.detach()

    def kept(self, images, t):
        """Images and logits of the samples that the method keeps."""
        if self.method.keep == "all":
            return images, t
        if self.method.keep == "block":
            keep = self.forget[t.argmax(1)] == 0
        else:
            keep = (F.softmax(t, 1) * self.forget).amax(1) < self.threshold
        return images[keep], t[keep]

    def target(self, t):
        """Logits of the distribution that the student learns."""
        if self.method.target == "teacher":
            return t
        if self.method.target == "project":
            return torch.where(self.forget > 0, -1e9, t)
        lowest = t.amin(1, keepdim=True)
        excess = (self.forget * (t - lowest)).sum(1, keepdim=True)
        return torch.where(self.forget > 0, lowest, t + excess / (1 - self.forget).sum())
