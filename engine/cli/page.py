"""`rfmstream page`."""

import click

from rfmstream.engine.cli.options import chosen_ruleset, language_option, ruleset_options
from rfmstream.engine.live.setting_values import option_address


@click.command(
    short_help="The page of several live workers as one, in your browser.",
    epilog="""
\b
Examples:
  # of two workers on this machine; then open http://127.0.0.1:8780
  rfmstream page --worker http://127.0.0.1:8765 --worker http://127.0.0.1:8766
  # of a worker elsewhere: its certificate is checked, and the token it asks for is in the environment
  RFMSTREAM_LISTEN_TOKEN_FILE=token rfmstream page --worker https://worker-1.example:8766

\b
A worker's own page is at its address. This one puts several together, and draws the pictures in a process of its own:
of more than a million customers a worker draws none. It listens on loopback only.
Exit codes: 0 stopped by Ctrl-C · 1 a worker does not answer · 2 usage or configuration · 4 different rulesets
""",
)
@click.option(
    "--worker", "workers", metavar="URL", multiple=True, required=True, help="A live worker; once for each."
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8780",
    show_default=True,
    help="Where the page is served, on loopback; port 0: any free one.",
)
@language_option("The language shown first")
@ruleset_options("the built-ins that the workers name; give the FILE of each that is your own", multiple=True)
def page(  # noqa: PLR0917 - options
    workers: tuple[str, ...],
    listen: str,
    lang: str,
    rulesets: tuple[str, ...],
    time_zone: str | None,
    currency: str | None,
) -> None:
    """Show tiers, movement, health and single customers of live workers, moving as orders come in.

    Workers go on as before: they tell what they have committed, and who does not keep up is left.
    """
    from rfmstream.engine.cli.page_server import serve
    from rfmstream.engine.insight.report.live_page import LivePage
    from rfmstream.engine.live.sources import resolve_one

    serve(
        workers,
        option_address(listen, "--listen"),
        LivePage(lang),
        token=resolve_one("listen_token", flags={}),
        named=[
            found
            for ruleset in rulesets or (None,)
            if (found := chosen_ruleset(ruleset, time_zone, currency)) is not None
        ],
    )
