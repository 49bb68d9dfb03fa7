"""A ``SyftRDSClient`` over our mailbox, as data owner or as data scientist, with end-to-end encryption on.

    client = connect(postbox, folder, role="scientist")
    client.add_peer("north@tessera.invalid")
    client.datasets, client.submit_python_job(...), client.jobs

The client is syft's own, unchanged; only its transport, its guards against peers and its job runner are ours.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Literal

from syft.sync.peers.peer_store import datasite_crypto_keys_path
from syft.sync.syftbox_manager import SyftboxManager, SyftboxManagerConfig, default_collections_folder
from syft.sync.sync.caches.datasite_owner_cache import DataSiteOwnerEventCacheConfig
from syft.sync.sync.caches.datasite_watcher_cache import DataSiteWatcherCacheConfig
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncerConfig
from syft.sync.sync.datasite_watcher_syncer import DatasiteWatcherSyncerConfig
from syft.sync.version.peer_manager import PeerManagerConfig
from syft_datasets.dataset_manager import SyftDatasetManager
from syft_job.client import JobClient
from syft_rds import SyftRDSClient, SyftRDSClientConfig
from syft_rds.config import DATASET_COLLECTION_SPECS

from datasites.syft.connection import MailboxConnection, MailboxConnectionConfig
from datasites.syft.guards import DurableOwnerSyncer, GuardedRouter, GuardedWatcher, make_durable, restore_missing
from datasites.syft.postbox import Postbox
from datasites.syft.runner import MockJobRunner, Sandbox, nothing_runs

Role = Literal["owner", "scientist"]

_log = logging.getLogger(__name__)


def connect(postbox: Postbox, folder: Path, *, role: Role, sandbox: Sandbox = nothing_runs) -> SyftRDSClient:
    """Return a ready client; its version is published and its peers are loaded.

    Args:
        postbox: the mailbox as one participant.
        folder: syft's folder (SyftBox), kept between starts; it holds the encryption keys.
        role: ``owner`` has datasets and receives jobs, ``scientist`` sends them.
        sandbox: runs approved plain jobs of an owner, on mock data only.
    """
    _silence_syft()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    connection = MailboxConnection(postbox)
    if not datasite_crypto_keys_path(folder, connection.email).exists():
        _forget_what_cannot_be_read(postbox)
    config = SyftRDSClientConfig._compose(_configuration(connection, folder, role))
    client = SyftRDSClient(
        sync_engine=_guarded(SyftboxManager.from_config(config.sync), folder / connection.email),
        job_client=JobClient.from_config(config.job),
        job_runner=MockJobRunner(config.job, sandbox=sandbox) if role == "owner" else None,
        dataset_manager=SyftDatasetManager.from_config(config.dataset),
    )
    client.sync_engine.write_local_version()
    client.peer_manager.write_own_version()
    client.load_peers()
    return client


def _forget_what_cannot_be_read(postbox: Postbox) -> None:
    # with a folder that is new, or restored to before its first start, come new keys: our own letters in the mailbox
    # are sealed to the ones that are gone, and peers must be met anew
    found = [entry.place for entry in postbox.list(box="own", owner=postbox.name)]
    if found:
        _log.warning("removed %d letters of our own that only the keys of an earlier folder could read", len(found))
        postbox.remove(found)


def _configuration(connection: MailboxConnection, folder: Path, role: Role) -> SyftboxManagerConfig:
    email = connection.email
    shared: dict[str, Any] = {
        "email": email,
        "syftbox_folder": folder,
        "connection_configs": [MailboxConnectionConfig(connection=connection)],
    }
    specs = {"collection_specs": DATASET_COLLECTION_SPECS}
    collections = {"collections_folder": default_collections_folder(folder, email, DATASET_COLLECTION_SPECS)}
    owner_cache = DataSiteOwnerEventCacheConfig(
        email=email, syftbox_folder=folder, use_in_memory_cache=False, **collections
    )
    watcher_cache = DataSiteWatcherCacheConfig(**shared, **specs, use_in_memory_cache=False)
    roles = {"has_do_role": role == "owner", "has_ds_role": role == "scientist"}
    return SyftboxManagerConfig(
        email=email,
        syftbox_folder=folder,
        use_in_memory_cache=False,
        **roles,
        datasite_owner_syncer_config=DatasiteOwnerSyncerConfig(
            **shared, **specs, **collections, cache_config=owner_cache
        ),
        datasite_watcher_syncer_config=DatasiteWatcherSyncerConfig(
            **shared, datasite_watcher_cache_config=watcher_cache
        ),
        peer_manager_config=PeerManagerConfig(
            **shared,
            **roles,
            use_encryption=True,
            n_threads=2,
            suppress_version_warnings=True,  # a peer that has not answered yet is no reason to warn
        ),
    )


def _guarded(engine: SyftboxManager, datasite: Path) -> SyftboxManager:
    if engine.datasite_owner_syncer is not None:
        owner = DurableOwnerSyncer.from_config(engine.config.datasite_owner_syncer_config)
        owner.connection_router = GuardedRouter(
            connections=owner.connection_router.connections,
            peer_store=engine.peer_manager.peer_store,
            datasite=datasite,
        )
        make_durable(owner.event_cache)
        restore_missing(owner.event_cache)
        engine.datasite_owner_syncer = owner
    if engine.datasite_watcher_syncer is not None:
        watcher = GuardedWatcher.from_config(engine.config.datasite_watcher_syncer_config)
        make_durable(watcher.datasite_watcher_cache)
        engine.datasite_watcher_syncer = watcher
    engine._set_peer_store(engine.peer_manager.peer_store)
    return engine


def _silence_syft() -> None:
    # syft prints its progress; a module's own global goes before the built-in, so its lines reach our log instead
    # and nothing else's output is touched
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("syft", "syft_rds", "syft_job", "syft_datasets", "syft_perms"):
            vars(module)["print"] = _to_log
    logging.getLogger("syft").setLevel(logging.WARNING)


def _to_log(*words: object, **_: object) -> None:
    _log.debug("syft: %s", " ".join(str(word) for word in words))
