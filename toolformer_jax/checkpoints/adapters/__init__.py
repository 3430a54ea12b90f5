"""Adapters in the formats of PEFT (LoRA, AdaLoRA, IA3, prefix tuning) and AdapterHub (bottlenecks).

`save_adapter` in `save`, `load_adapter` in `load`; the other files each know one kind of adapter.
"""
