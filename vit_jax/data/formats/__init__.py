"""Data sets as they lie on disk, each as a source: folders, lists, tar shards, records."""
