"""Insight into trained models: where they attend, how their positions and layers resemble one another, and which images they take
for alike.

`rollout`, `attention_distance`, `entropy`, `filter_components`, `position_similarity` and `cka` map arrays to arrays, of any
library's model. `explain.explain` measures them all of a checkpoint, on images.
"""

from vit_jax.insight.attention import attention_distance as attention_distance
from vit_jax.insight.attention import entropy as entropy
from vit_jax.insight.attention import rollout as rollout
from vit_jax.insight.filters import filter_components as filter_components
from vit_jax.insight.layers import cka as cka
from vit_jax.insight.layers import position_similarity as position_similarity
