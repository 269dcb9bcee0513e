"""Hardware-aware training on the physics of ``aimc_compiler.analog``. Nothing is built here yet."""
