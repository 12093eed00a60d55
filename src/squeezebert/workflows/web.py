"""An exported folder in, a static page and what to do with it out: the job behind `squeezebert web`. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from squeezebert.web.engine import find_engine
from squeezebert.web.site import check_model, check_output, write_site
from squeezebert.workflows.options import WebOptions


def make_page(options: WebOptions, report: Callable[[str], None]) -> str:
    """Write the page and return a summary: what visitors load, and how to look at it.

    Raises `FolderError` for the model, the engine's folder, or an output that may not be replaced, `OptionError` for a
    precision that the model has not, and `DependencyError` where npm is needed and cannot be had.
    """
    output = Path(options.output)
    check_model(Path(options.folder))
    check_output(output, options.overwrite)
    engine = find_engine(None if options.engine_dir is None else Path(options.engine_dir), report)
    site = write_site(
        Path(options.folder),
        output,
        engine,
        title=options.title,
        precisions=None if options.precision == "both" else (options.precision,),
        webgpu=options.webgpu,
        overwrite=options.overwrite,
        report=report,
    )
    lines = [f"{name}: {size / 1e6:.1f} MB" for name, size in site.bytes.items()]
    serve = f"python -m http.server --directory {shlex.quote(str(output))} 8080"
    return "\n".join([*lines, f"written: {output}", f"next: {serve}, and open http://localhost:8080"])
