"""The program, `python -m ispf_jax`: signals are heard before anything that takes time is imported."""

from ispf_jax.runtime import interruption


def main():
    """Entry point of the console script and of launch.py."""
    interruption.listen()
    from ispf_jax import cli

    cli.main()


if __name__ == "__main__":
    main()
