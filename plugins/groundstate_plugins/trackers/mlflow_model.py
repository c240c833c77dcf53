"""A groundstate model as an MLflow pyfunc, logged from this code beside its weights: no pickle.

MLflow copies this file into the logged model and runs it when the model is loaded.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np

BATCH = 1000


class EnergyModel(mlflow.pyfunc.PythonModel):
    """Codes of lowest energy, or the task's labels, for a batch of inputs."""

    def load_context(self, context: Any) -> None:
        import groundstate

        self.model = groundstate.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Inputs (n, *input_shape), float32. Returns codes (n, *code_shape), or labels (n,) where
        ``params = {"output": "labels"}`` and the model has a task.
        """
        import torch

        output = (params or {}).get("output", "codes")
        if output not in ("codes", "labels"):
            raise ValueError(f"output = '{output}' is not known; it is 'codes' or 'labels'")
        x = torch.as_tensor(np.ascontiguousarray(model_input))
        infer = self.model.encode if output == "codes" else self._labels
        return np.concatenate([infer(part).detach().cpu().numpy() for part in x.split(BATCH)])

    def _labels(self, x: Any) -> Any:
        scores = self.model.predict(x)
        if scores is None:
            raise ValueError("this model has no task that predicts labels; ask for output = 'codes'")
        return scores.argmax(1) if scores.ndim == 2 else scores


mlflow.models.set_model(EnergyModel())
