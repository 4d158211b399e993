"""python launch.py --config=configs/digits_ispf.py [--workdir=DIR] [--config.key=value ...]: see ispf_jax/cli.py."""

from ispf_jax.__main__ import main

if __name__ == "__main__":
    main()
