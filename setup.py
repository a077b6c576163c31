"""The packages, which pyproject.toml cannot name: those of vit_jax/, and configs/, which is vit_jax.configs once installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vit_jax", "vit_jax.*"]), "vit_jax.configs"],
    package_dir={"vit_jax.configs": "configs"},
)
