"""Two small models that learn to remember, for the lens to look into."""

from gladient.experiments.demo.models import DEMO, DemoConfig, DemoModel, demo_models, load_demo

__all__ = ["DEMO", "DemoConfig", "DemoModel", "demo_models", "load_demo"]
