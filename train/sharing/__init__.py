"""Shared prefixes: README.md in this folder explains the trie by one drawn example."""

from train.sharing.forward import PrefixSharing, share_prefixes
from train.sharing.layout import Packed, SharingError, pack_prefixes

__all__ = ["Packed", "PrefixSharing", "SharingError", "pack_prefixes", "share_prefixes"]
