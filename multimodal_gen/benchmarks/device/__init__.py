"""Measurements that only a GPU can show: `multimodal-gen bench --device cuda`.

Each section runs in a process of its own and within its time, so that one that breaks costs no
other.
"""
