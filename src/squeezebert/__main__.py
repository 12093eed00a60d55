"""`python -m squeezebert` is the `squeezebert` program."""

from squeezebert.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
