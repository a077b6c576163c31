"""The folder's own modules, and its tests' freedom from our strictness: warnings of other libraries are theirs."""
