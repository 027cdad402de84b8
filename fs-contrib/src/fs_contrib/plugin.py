"""The hooks of the plugin `contrib`."""

from __future__ import annotations

from typing import Any

from attrs import define

from fscore import Component, hookimpl


@define(eq=False)
class ContribPlugin(Component):
    """Registers what this distribution offers; `[plugins.contrib]` switches it on."""

    name = "contrib"

    @hookimpl
    def fscore_register_server_optimizers(self) -> list[Any]:
        from fs_contrib.swa import SWA

        return [SWA]
