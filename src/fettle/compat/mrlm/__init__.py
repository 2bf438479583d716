"""A multi-agent library's documented names over this one: ``core``, ``data``, ``algorithms.ppo``.

``from mrlm.core import LLMEnvironment`` becomes ``from fettle.compat.mrlm.core import LLMEnvironment``.
"""
