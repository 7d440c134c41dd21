"""What a run is for: a model in a folder, and how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from sublayer import config
from sublayer.config.folders import UNFINISHED
from sublayer.config.load import dump_toml
from sublayer.data.batch import AnyBatch
from sublayer.errors import DataError
from sublayer.files import write_json, write_text
from sublayer.hub import folder as model_folder
from sublayer.hub.adapted import Adapted
from sublayer.hub.engine_file import write_engine
from sublayer.hub.location import STEP, read_description
from sublayer.models import Model
from sublayer.tasks.held_out import write_rows
from sublayer.tasks.objective import Objective
from sublayer.tasks.scores import UNLEARNED
from sublayer.training.model_card import model_card
from sublayer.training.progress import Reporter
from sublayer.training.start import Start
from sublayer.training.task_data import TaskData
from sublayer.training.trainable import trainable_parameters


@dataclass(frozen=True)
class Result:
    """What a run is for: the model as it stands, written as a folder with all that belongs to it.

    Of a model with adapters only what learned is written, and where its base is.
    """

    out: Path
    data: TaskData
    model: Model
    objective: Objective[AnyBatch]
    start: Start | None

    def write(self) -> None:
        """The model folder with its card and the held-out rows; beside it, what the last evaluation looks like."""
        self._write(self.out / "model")
        self.objective.plot(self.out)

    def write_unfinished(self, step: int) -> None:
        """The same of a run that has not ended, in a folder of its own; nothing where an earlier end left a model."""
        if not (self.out / "model").is_dir():
            self._write(self.out / UNFINISHED)
            write_json(self.out / UNFINISHED / STEP, {"step": step})

    def _write(self, folder: Path) -> None:
        recipe = self.data.recipe
        bundle = model_folder.ModelBundle(self.model, self.data.tokenizer)
        if self.start is not None:
            bundle = replace(bundle, decoding=self.start.decoding, imported=self.start.imported)
            if recipe.adapter is not None:
                adapted = Adapted(recipe.adapter, self.start.base, trainable_parameters(self.model))
                bundle = replace(bundle, adapted=adapted)
        if isinstance(recipe.model, config.EncoderDecoder | config.RecurrentEncoderDecoder):
            bundle = replace(bundle, decoding=recipe.decoding.plain())
        card = model_card(recipe, self.data.splits, self.model, self.out)
        model_folder.write(folder, bundle, model_folder.ModelCard(dump_toml(recipe), card))
        write_text(folder / "test.jsonl", write_rows(self.data.splits.test))

    def evaluate(self, reporter: Reporter) -> None:
        """The model in the folder on what was held out; its card says it, and `scores.json` for programs.

        What the engine runs of the model is put beside it.
        """
        folder, table = self.out / "model", self.data.splits.test
        try:
            model = model_folder.read(folder, self.model.device).model
            write_engine(folder, read_description(folder), model)
            found = self.data.task.measure(model, self.data.recipe, table, self.data.tokenizer)
        except DataError as error:
            reporter.say(f"not evaluated on what was held out: {error}")
            return
        reporter.say(f"held out: {found}")
        # A BLEU of 0.0 alone may be that of short texts that are all right; their loss is then low.
        guessing = found.scores["loss"] > math.log(self.model.config.vocab_size) / 2
        if round(found.scores.get("bleu", 1.0), 1) == 0 and guessing:
            reporter.say(UNLEARNED)
        card = model_card(self.data.recipe, self.data.splits, self.model, self.out, found)
        write_text(folder / "README.md", card)
        write_json(folder / "scores.json", {"held_out": found.scores, found.noun: found.count})
