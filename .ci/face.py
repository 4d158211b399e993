"""Digits taught, unlearned and audited through the library alone, in memory; the student equals that of launch.py."""

import time

import ispf_jax

began = time.time()
data = ispf_jax.data.load("digits", image_size=16, channels=1)
recipe = ispf_jax.Train(epochs=20, batch_size=128, lr=0.05, decay_epochs=(15,))
teacher = ispf_jax.train(data, width=0.25, config=recipe, progress="lines")
gold = ispf_jax.train(data, width=0.25, without=[3], config=recipe, progress="lines")
settings = ispf_jax.Distill(epochs=100, loops=1, batch_size=128, lr=0.1, generator_width=0.25)
out = ispf_jax.unlearn(teacher, forget=[3], config=settings, progress="lines")
result = ispf_jax.audit(
    {"ispf": out},
    data,
    forget=[3],
    original=teacher,
    retrained=gold,
    metrics=("accuracy", "relearn"),
    config=ispf_jax.Audit(relearn_batch=64, shots=(5,), embedding_images=0),
)
print(result)
result.report("page.html")
out.classifier.save("weights.safetensors")
again = ispf_jax.load("weights.safetensors")
correct = again(data.test.images).argmax(1) == data.test.labels
retained = data.test.labels != 3
shares = f"forgotten {100 * correct[~retained].mean():.2f} %, retained {100 * correct[retained].mean():.2f} %"
print(f"{shares}, {time.time() - began:.0f} s")
assert not correct[~retained].any() and correct[retained].mean() > 0.9
