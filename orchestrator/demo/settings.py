"""What ``tessera demo`` and ``tessera serve`` are asked for: every field is an option of the command line.

Options that name a variable are read from the environment as well (``docs/deploy.md``). This module imports nothing
heavy, since ``tessera --help`` reads it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """A consortium on this machine and its study."""

    data: Annotated[Path | None, Option(help="Folder of TCGA tables; synthetic patients when left out.")] = None
    schema: Annotated[
        Path | None,
        Option(help="A study's schema: a file, or one that comes along; patients are made up without --data."),
    ] = None
    outcome: Annotated[str | None, Option(help="Which outcome of --schema; its first by default.")] = None
    federation: Annotated[str, Option(help="tri-modal, bi-modal, upper-bound, tissue-source-sites.")] = "tri-modal"
    task: Annotated[str, Option(help="I-II, early-late, ordinal or I-IV.")] = "early-late"
    rounds: Annotated[int, Option(min=1, max=1000, help="Rounds of training.")] = 5
    sites: Annotated[int, Option(min=3, max=50, help="Number of institutions.")] = 9
    out: Annotated[Path | None, Option(help="Where everything is kept; a new folder by default.")] = None
    manual: Annotated[bool, Option("--manual", help="Leave one hospital's approval to you.")] = False
    manual_all: Annotated[bool, Option("--manual-all", help="Leave every hospital's approval to you.")] = False
    seed: Annotated[int, Option(help="Seed of the data split and, with --public-noise, of the noise.")] = 0
    epsilon: Annotated[float, Option(help="Worst-case epsilon per patient (inf: no privacy).")] = 8.0
    noise: Annotated[str, Option(help="local or shared.")] = "local"
    min_sites: Annotated[
        int | None,
        Option(min=3, help="Fewest hospitals in a sum. Without: 3, under shared noise all but one."),
    ] = None
    colluders: Annotated[
        int, Option(min=1, help="Hospitals that may work with the orchestrator; shared noise is charged for that.")
    ] = 1
    evaluation_share: Annotated[
        float | None,
        Option(
            "--evaluation-share",
            "--evaluate",
            min=0.0,
            max=1.0,
            help="Part of epsilon for one evaluation at the end. Without: 1 where there are several rounds, else 0.",
        ),
    ] = None
    architecture: Annotated[str, Option("--model", help="linear, mlp or mlp-auxiliary.")] = "linear"
    aggregation: Annotated[
        str,
        Option(help="fedavg, fedprox, fedadam, fedyogi, fedadagrad, fedavgm, dgb, pcw or dgb+pcw."),
    ] = "fedavg"
    public_noise: Annotated[bool, Option("--public-noise", help="Derive all noise from the seed: NO PRIVACY.")] = False
    start_seconds: Annotated[
        int, Option(min=10, max=7200, envvar="TESSERA_START_SECONDS", help="Seconds that all roles may take to start.")
    ] = 300

    @property
    def by_hand(self) -> bool:
        """Whether a person approves at one hospital or at all."""
        return self.manual or self.manual_all


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """One role of a consortium, from an empty folder to serving.

    ``https`` in ``orchestrator_url`` makes the orchestrator a certificate authority of its own, unless ``ca`` says who
    vouches for the certificate that its operator gave it. An empty ``data`` folder (a mount of nothing) is none.
    """

    name: Annotated[str, Argument(help="Who this is, as the consortium's file names it.")]
    home: Annotated[Path, Option(envvar="TESSERA_HOME", help="The role's folder.")]
    exchange: Annotated[
        Path, Option(envvar="TESSERA_EXCHANGE", help="Folder all roles share; only public files go there.")
    ]
    consortium: Annotated[Path, Option(envvar="TESSERA_CONSORTIUM", help="Who is expected (TOML).")]
    orchestrator_url: Annotated[str, Option(envvar="TESSERA_ORCHESTRATOR_URL", help="The address everybody dials.")] = (
        "https://orchestrator:8443"
    )
    host: Annotated[str, Option(help="Address it listens on.")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Port it listens on.")] = 8080
    public_url: Annotated[
        str, Option(envvar="TESSERA_PUBLIC_URL", help="Where people reach this hospital's portal.")
    ] = ""
    data: Annotated[
        Path | None, Option(envvar="TESSERA_DATA", help="A ready dataset or cohort tables; synthetic patients without.")
    ] = None
    policy: Annotated[Path | None, Option(envvar="TESSERA_POLICY", help="The owner's policy to start with (TOML).")] = (
        None
    )
    tls_certificate: Annotated[str, Option(help="Own certificate for what this role serves (PEM).")] = ""
    tls_key: Annotated[str, Option(help="Its key, where it is in another file.")] = ""
    ca: Annotated[str, Option(help="Who vouches for the orchestrator's own certificate (PEM).")] = ""
    wait_seconds: Annotated[float, Option(min=1, help="How long to wait for the others at first start.")] = 600.0

    @property
    def tables(self) -> Path | None:
        """The folder of ``data`` where there is something in it."""
        return self.data if self.data is not None and self.data.is_dir() and any(self.data.iterdir()) else None

    @property
    def own_authority(self) -> bool:
        """Whether the orchestrator vouches for its own certificate."""
        return self.orchestrator_url.startswith("https:") and not self.ca
