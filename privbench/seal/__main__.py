"""The helper process: ``python -I -m privbench.seal``, started by ``privbench.seal.helper``."""

from privbench.seal.child import serve

if __name__ == "__main__":
    serve()
