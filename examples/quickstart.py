"""Compile a trained network for an analog chip, look at it, run it after an hour and after a year.

python examples/quickstart.py
"""

import aimc_compiler as aimc
from aimc_compiler.zoo.fashion import fashion_images, fashion_resnet

model = fashion_resnet()
calibration, _ = fashion_images("calibration")
images, labels = fashion_images("test")

chip = aimc.load_chip("analog-fabric")
compiled = aimc.compile(model, chip, (images[:1],), calibration=calibration.split(100))
print(f"{compiled.utilization.tiles_used} tiles, {100 * compiled.utilization.utilization:.1f} % of their cells used")
print(f"{1e6 * compiled.timing.latency_s:.1f} us and {1e6 * compiled.timing.energy_j:.2f} uJ an image")

device = compiled.deploy(seed=0)
print("one chip, one hour after programming:", device(images[:8], time_s=3600.0).argmax(1).tolist())

result = aimc.evaluate(compiled, [(images[:500], labels[:500])], times_s=(3600.0, 31_536_000.0), n_chips=3)
for row in result.times:
    print(f"{row.time_s:>12.0f} s  accuracy {100 * row.mean:.1f} %  (float {100 * result.float_metric:.1f} %)")
