import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each() -> None:
    """Tests run side by side; threads inside them would only get in one another's way."""
    import torch

    torch.set_num_threads(1)
