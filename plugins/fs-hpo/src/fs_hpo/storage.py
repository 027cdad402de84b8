"""An Optuna storage that follows a search, for Optuna's dashboard and whatever else reads its studies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import optuna

from fs_hpo.sampling import STUDY, Observation, frozen_trial
from fscore.builtin.tuning.space import Axis
from fscore.errors import CourseError, WriteError


def mirror(storage: str, space: Sequence[Axis], number: int, observation: Observation) -> None:
    """Enter a result as trial `number` of the study; one that is there already, since the search was killed, stays.

    Args:
        storage: a URL of Optuna's RDB storage, or the path of a journal file.
        space: the axes of the search.
        number: counts the results from 0.
        observation: parameters and loss; without a loss the trial failed.

    Raises:
        CourseError: the study there is of another search.
        WriteError: the storage cannot be used.
    """
    trial = frozen_trial(space, observation)
    if observation.loss is None:
        trial.state = optuna.trial.TrialState.FAIL
    study = opened(storage)
    with using(storage):
        trials = study.get_trials(deepcopy=False)
        if number >= len(trials):
            study.add_trial(trial)
            return
    if trials[number].params != trial.params:
        raise CourseError(
            f"tune.storage: trial {number} in '{storage}' is of another search. Remedy: name another storage."
        )


def opened(storage: str) -> optuna.Study:
    """Return the study of a storage, which is made where there is none; the pruner is none, the loss is minimised.

    Raises:
        WriteError: the storage cannot be used.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with using(storage):
        backend = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
        return optuna.create_study(
            storage=backend,
            pruner=optuna.pruners.NopPruner(),
            study_name=STUDY,
            direction="minimize",
            load_if_exists=True,
        )


@contextlib.contextmanager
def using(storage: str) -> Iterator[None]:
    """Turn what Optuna, its database or the disk raises into one line.

    Raises:
        WriteError: whatever was raised.
    """
    try:
        yield
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        raise WriteError(
            f"tune.storage: '{storage}' cannot be used: {text or type(error).__name__}. Remedy: the path of a journal "
            "file, or a URL like sqlite:///study.db."
        ) from error
