"""An Optuna storage that follows a search, for Optuna's dashboard and whatever else reads its studies."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from fs_hpo.sampling import STUDY, Observation, frozen_trial
from fscore.builtin.tuning.space import Axis
from fscore.errors import CourseError


def mirror(storage: str, space: Sequence[Axis], number: int, observation: Observation) -> None:
    """Enter a result as trial `number` of the study; one that is there already, since the search was killed, stays.

    Args:
        storage: a URL of Optuna's RDB storage, or the path of a journal file.
        space: the axes of the search.
        number: counts the results from 0.
        observation: parameters and loss; without a loss the trial failed.

    Raises:
        CourseError: the study there is of another search.
    """
    study = opened(storage)
    trials = study.get_trials(deepcopy=False)
    if number < len(trials):
        if trials[number].params != observation.params:
            raise CourseError(
                f"tune.storage: trial {number} in '{storage}' is of another search. Remedy: name another storage."
            )
        return
    trial = frozen_trial(space, observation)
    if observation.loss is None:
        trial.state = optuna.trial.TrialState.FAIL
    study.add_trial(trial)


def opened(storage: str) -> optuna.Study:
    """Return the study of a storage, which is made where there is none; the pruner is none, the loss is minimised."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
    return optuna.create_study(
        storage=backend,
        pruner=optuna.pruners.NopPruner(),
        study_name=STUDY,
        direction="minimize",
        load_if_exists=True,
    )
