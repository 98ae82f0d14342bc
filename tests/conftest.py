import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each() -> None:
    """Tests run side by side; threads inside them would only get in one another's way."""
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
