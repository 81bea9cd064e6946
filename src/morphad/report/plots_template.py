"""The page that `dvc plots show` fills in, with Vega inside it, so that charts are drawn without a network.

    python -m morphad.report.plots_template .dvc/plots.html && dvc config --local plots.html_template plots.html

Needs the extra `plots`; Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) come out of the package vl-convert-python.
"""

import sys
from pathlib import Path

from morphad.base.files import write_text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>Plots of all lines</title>
<script>SCRIPT</script>
<style>body { font-family: system-ui, sans-serif; margin: 2rem } img { max-width: 100% }</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def write_template(path: Path) -> None:
    """Write the template.

    Raises:
        BadInputError: The file cannot be written.
    """
    import vl_convert  # noqa: PLC0415 - an extra that only this needs

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="5.20")
    write_text(path, _PAGE.replace("SCRIPT", bundle.replace("</script", "<\\/script")))


if __name__ == "__main__":
    write_template(Path(sys.argv[1]))
