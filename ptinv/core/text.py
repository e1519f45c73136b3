"""τ_θ: a prompt as CLIP's tokens, and the CLIP text model that turns them into an embedding.

Both come from transformers, opened from local files only.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

LENGTH = 77  # tokens in an embedding, with the start and at least one end token


class TextEncoder(nn.Module):
    """CLIP's text model, to its last layer norm. Tensor names are those of the checkpoint.

    config: `CLIPTextConfig`'s arguments; sd-v1-4's has 12 layers of width 768.
    """

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        ids = dict(bos_token_id=0, pad_token_id=1, eos_token_id=2)  # of the pooled output, unused
        clip = CLIPTextModel(CLIPTextConfig(**config | ids))
        # transformers 4 keeps the layers one module deeper than 5; the files have the prefix
        self.text_model = getattr(clip, "text_model", clip)
        # no file holds this buffer, so it must not be left empty on the meta device
        positions = torch.arange(config["max_position_embeddings"], device="cpu")[None]
        self.text_model.embeddings.register_buffer("position_ids", positions, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b, 77) -> the embedding (b, 77, d).

        CLIP attends backwards only: row i holds the prompt as far as token i, and the end tokens
        after it hold the whole. All 77 rows are attended to by the UNet.
        """
        return self.text_model(input_ids=ids).last_hidden_state


class Tokenizer:
    """Reads a prompt as the 77 token ids that the model sees.

    A common word is one token; a rarer one is several, of which the last ends in `</w>`.
    folder: holds CLIP's `vocab.json` and `merges.txt`, or `tokenizer.json`, which wins.
    """

    def __init__(self, folder: Path):
        how = dict(local_files_only=True, pad_token="<|endoftext|>")  # SD 2's, "!", is a word
        self.clip = CLIPTokenizerFast.from_pretrained(str(folder), **how)

    def ids(self, prompts: list[str]) -> Tensor:
        """(b, 77): start, the prompt, and end tokens to the full length, as SD v1 was trained."""
        end = self.clip.eos_token_id
        read = (ids[: LENGTH - 1] for ids in self.clip(prompts, verbose=False)["input_ids"])
        return torch.tensor([ids + [end] * (LENGTH - len(ids)) for ids in read], device="cpu")
