"""Cells on Dask: a cluster on this machine, or one that runs. Workers read the sweep's folder under the same path."""

from collections.abc import Iterator, Sequence
from typing import Any

from aimc_compiler.errors import MissingDependencyError, SweepError
from aimc_compiler.study.sweep.cell import Task, answer
from aimc_compiler.study.sweep.runners import Outcome, as_outcome

LOCAL = "local"


def run_on_dask(tasks: Sequence[Task], address: str, workers: int, retries: int) -> Iterator[Outcome]:
    """address: of a scheduler, "tcp://host:8786", or "local" for a cluster of ``workers`` processes here.

    A cell whose worker dies is tried again by the scheduler, here ``retries`` times, on a cluster of yours as often as
    its ``distributed.scheduler.allowed-failures`` says. Raises MissingDependencyError, SweepError.
    """
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise MissingDependencyError("sweeps on Dask need distributed: pip install 'aimc_compiler[dask]'") from error
    settings = {"distributed.scheduler.allowed-failures": retries}
    with dask.config.set(settings):
        cluster: Any = None
        if address == LOCAL:
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
        try:
            with _client(Client, address if cluster is None else cluster) as client:
                futures = {client.submit(answer, task.plain(), pure=False): task.cell for task in tasks}
                for future in as_completed(list(futures)):
                    yield _outcome(future, futures.pop(future))
        finally:
            if cluster is not None:
                cluster.close()


def _client(client: Any, cluster: Any) -> Any:
    try:
        return client(cluster)
    except (OSError, ValueError, TypeError) as error:
        raise SweepError(
            f"no Dask scheduler answers at {cluster}: {error}; start one with `dask scheduler`, or write --dask local"
        ) from error


def _outcome(future: Any, cell: str) -> Outcome:
    if future.status == "finished":
        return as_outcome(future.result())
    error = future.exception()
    return Outcome(cell=cell, error=f"{type(error).__name__}: {error}" if error else f"the cluster {future.status} it")
