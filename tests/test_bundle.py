import pytest

from selmem import bundled_path
from selmem.errors import InputError


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(InputError, match=r"'mamba-big'; bundled are mamba-tiny, mamba-tiny-null-"):
        bundled_path("mamba-big")


@pytest.mark.parametrize("name", ["mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe"])
def test_the_models_fit_in_five_megabytes_each(name):
    files = list(bundled_path(name).iterdir())
    assert sum(file.stat().st_size for file in files) < 5_250_000
    assert (bundled_path(name) / "model.safetensors") in files
