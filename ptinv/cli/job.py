"""One picture to be made of another, as `edit`, `reconstruct` and `again` do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import images, pipeline
from ..inversion.record import Inversion
from ..inverting import settings_of
from ..metrics import psnr
from ..model import StableDiffusion
from ..provenance import Recipe, fingerprint, made_with
from ..sampling import Progress
from ..settings import Settings, check_prompt


@dataclass(frozen=True)
class Job:
    """All that it takes but the model; what can be refused without one has been."""

    command: str  # edit or reconstruct
    picture: Image.Image | Inversion
    prompt: str
    method: str
    settings: Settings
    output: Path
    show_mask: Path | None = None  # where to write the mask over the picture

    @classmethod
    def of(
        cls,
        command: str,
        picture: Image.Image | Inversion,
        prompt: str,
        method: str,
        options: dict[str, Any],
        output: Path,
        show_mask: Path | None = None,
    ) -> "Job":
        """Checks the prompt and the options. Raises InputError for what can't be used."""
        editing = command == "edit"
        check_prompt(prompt, "what the picture should become" if editing else None)
        if editing:
            settings = settings_of(picture, method, prompt, **options)
        else:
            settings = pipeline.settings_of_reconstruction(picture, prompt, method, **options)
        return cls(command, picture, prompt, method, settings, output, show_mask)

    @property
    def image(self) -> Image.Image:
        """What the new picture is made of and compared with."""
        return self.picture.picture if isinstance(self.picture, Inversion) else self.picture

    @property
    def picture_hash(self) -> str:
        """Tells what the new picture is made of: with a stored tuning, that is more than pixels."""
        stored = self.settings.reuse_tuning
        return self.picture.digest if stored else fingerprint(self.image)

    def recipe(self, model: StableDiffusion) -> Recipe:
        """What the new picture is to say of itself."""
        mask = self.settings.mask
        return Recipe(
            self.command,
            self.prompt,
            self.method,
            self.settings,
            made_with(model),
            self.picture_hash,
            fingerprint(mask) if isinstance(mask, Image.Image) else "",
        )

    def perform(self, model: StableDiffusion, progress: Progress) -> Image.Image:
        """Makes and saves the picture; a reconstruction's PSNR is printed."""
        text = self.recipe(model).chunks() if images.carries_text(self.output) else None
        how = self.picture, self.prompt, self.method, self.settings, progress
        walk = pipeline.run if self.command == "edit" else pipeline.unedited
        result = walk(model, *how)
        made = result.picture
        images.save_picture(made, self.output, text)
        if self.show_mask:
            mask = torch.ones(1, 1, 1, 1) if result.mask is None else result.mask
            images.save_picture(images.over(self.image, mask), self.show_mask)
        if self.command == "reconstruct":
            wanted = images.resize(self.image, model.picture_size(self.image.size))
            ceiling = model.decode(model.encode(self.image))
            print(f"{self.method}: {psnr(result.decoded, wanted):.2f} dB")
            print(f"vae: {psnr(ceiling, wanted):.2f} dB (the ceiling)")
        return made
