"""The plugin that is always on: every component that the kernel offers by default."""

from __future__ import annotations

from typing import Any

from attrs import define

from fscore.component import Component
from fscore.hookspecs import hookimpl


@define(eq=False)
class Builtin(Component):
    """Registers the built-in components; modules are imported when they are asked for."""

    name = "builtin"

    @hookimpl
    def fscore_register_aggregators(self) -> list[Any]:
        from fscore.builtin import aggregators as m
        from fscore.builtin import aggregators_async as mixing

        return [m.Mean, m.Staleness, m.Median, mixing.FedAsync, mixing.FedAT, mixing.SAFA]

    @hookimpl
    def fscore_register_trainers(self) -> list[Any]:
        from fscore.builtin import trainers as m

        return [m.SGD]

    @hookimpl
    def fscore_register_privacy_mechanisms(self) -> list[Any]:
        from fscore.builtin import privacy as m

        return [m.NormClip]

    @hookimpl
    def fscore_register_tuners(self) -> list[Any]:
        from fscore.builtin.tuning import tuners as m

        return [m.GridSearch, m.RandomSearch]

    @hookimpl
    def fscore_register_datasets(self) -> list[Any]:
        from fscore.builtin.data.digits import Digits
        from fscore.builtin.data.npz import Npz
        from fscore.builtin.data.synthetic import Synthetic

        return [Digits, Npz, Synthetic]

    @hookimpl
    def fscore_register_partitions(self) -> list[Any]:
        from fscore.builtin.data import partitions as m

        return [m.Natural, m.Iid, m.Dirichlet, m.Shards, m.Quantity]

    @hookimpl
    def fscore_register_models(self) -> list[Any]:
        from fscore.builtin.models import specs as m

        return [m.Softmax, m.MLP, m.FemnistCNN, m.CNN, m.CharLSTM]

    @hookimpl
    def fscore_register_objectives(self) -> list[Any]:
        from fscore.builtin import objectives as m

        return [m.Classification, m.Regression, m.NextToken]

    @hookimpl
    def fscore_register_metrics(self) -> list[Any]:
        from fscore.builtin import metrics as m

        return [m.Loss, m.Accuracy, m.TopK, m.MSE, m.MAE]

    @hookimpl
    def fscore_register_protocols(self) -> list[Any]:
        from fscore.builtin import rounds as m

        return [m.Rounds]

    @hookimpl
    def fscore_register_samplers(self) -> list[Any]:
        from fscore.builtin import samplers as m

        return [
            m.Uniform, m.Poisson, m.Weighted, m.RoundRobin, m.All, m.Responsiveness, m.Group, m.Tiers,
            m.PowerOfChoice, m.Oort,
        ]  # fmt: skip

    @hookimpl
    def fscore_register_triggers(self) -> list[Any]:
        from fscore.builtin import triggers as m

        return [m.AllReceived, m.GoalAchieved, m.TimeUp, m.GoalOrDeadline, m.PerTier]

    @hookimpl
    def fscore_register_devices(self) -> list[Any]:
        from fscore.builtin import devices as m

        return [m.Constant, m.LogNormal, m.Phones, m.Exponential, m.HalfNormal, m.Trace]

    @hookimpl
    def fscore_register_availabilities(self) -> list[Any]:
        from fscore.builtin import devices as m

        return [m.Sessions, m.AvailabilityTrace]

    @hookimpl
    def fscore_register_faults(self) -> list[Any]:
        from fscore.builtin import faults as m

        return [m.Drop, m.Crash, m.Delay, m.Duplicate, m.SlowLink, m.Corrupt, m.Kill]

    @hookimpl
    def fscore_register_server_optimizers(self) -> list[Any]:
        from fscore.builtin import server_optimizers as m

        return [m.SGD, m.Adagrad, m.Adam, m.Yogi]

    @hookimpl
    def fscore_register_policies(self) -> list[Any]:
        from fscore.builtin.policies import Schedule

        return [Schedule]

    @hookimpl
    def fscore_register_executors(self) -> list[Any]:
        from fscore.builtin.executors.auto import AutoExecutor
        from fscore.builtin.executors.cohort import CohortExecutor
        from fscore.builtin.executors.process import ProcessExecutor
        from fscore.builtin.executors.serial import SerialExecutor
        from fscore.builtin.executors.thread import ThreadExecutor

        return [AutoExecutor, SerialExecutor, CohortExecutor, ProcessExecutor, ThreadExecutor]

    @hookimpl
    def fscore_register_reporters(self) -> list[Any]:
        from fscore.builtin import reporters as m
        from fscore.builtin.timeline import Timeline

        return [m.Console, m.JSONLines, m.CSV, Timeline]

    @hookimpl
    def fscore_register_evaluators(self) -> list[Any]:
        from fscore.builtin.evaluation import Instrument

        return [Instrument]

    @hookimpl
    def fscore_register_stores(self) -> list[Any]:
        from fscore.builtin import stores as m

        return [m.MemoryStore, m.DiskStore, m.NoStore]
