"""What the miniature's variants are: settings of the training jobs, as data, and how many steps."""

from __future__ import annotations

from dataclasses import dataclass

FRAMES, FPS = 4, 2
BASE_PX, REFINE_PX = (56, 32), (112, 64)


@dataclass(frozen=True)
class Scale:
    """How much of everything. Steps of a variant follow those of "shared"."""

    films: int
    shots: int
    held_films: int
    held_shots: int
    shared_steps: int
    variant_steps: int
    refine_steps: int
    clips: int
    seeds: int
    base_sampling_steps: int
    refine_sampling_steps: int
    free_starts: bool = False

    @property
    def single_steps(self) -> int:
        """Steps of the single stage, of 4 clips, that cost what a variant's steps and the
        refinement's cost together; a latent place of a frame is the unit."""
        small, large = (w // 4 * (h // 4) for w, h in (BASE_PX, REFINE_PX))
        base, refine = self.variant_steps * 8 * small, self.refine_steps * 4 * large
        return round((base + refine) / (4 * large))


# "full" is what was run. With "free_starts" only the prompt says where an object goes (see
# findings_world.py): the sharper test, which takes longer to learn, for a quiet machine.
SCALES = {
    "full": Scale(48, 12, 8, 8, 1050, 150, 120, 32, 2, 8, 6),
    "free_starts": Scale(48, 12, 8, 8, 3000, 400, 400, 32, 2, 8, 6, free_starts=True),
    "tiny": Scale(2, 6, 0, 0, 3, 2, 2, 3, 1, 2, 2),
}


@dataclass(frozen=True)
class Variant:
    """A base stage: how it differs from "full" in training (None: it is "full" itself), and what it
    is not given when it is sampled."""

    settings: dict[str, str] | None
    withheld: tuple[str, ...] = ()
    turned: bool = False  # the prompts' directions, by 90 degrees


# "full" learns with each of text and image dropped at times, so it can be asked for videos without;
# content and detail are never dropped alone in its training, so lacking one of them is a training
# of its own.
VARIANTS = {
    "full": Variant({}),
    "no_content": Variant({"regimen.drop_content_alone": "1"}, ("content",)),
    "no_detail": Variant({"regimen.drop_detail_alone": "1"}, ("detail",)),
    "text_only": Variant(None, ("image", "content", "detail")),
    "image_only": Variant(None, ("text",)),
    "turned": Variant(None, turned=True),
    "gamma_1": Variant({"regimen.spatial_rate": "1"}),
    "video_only": Variant({"mixture.frames": str(FRAMES), "mixture.frames_weights": "1"}),
}
MIXTURE = {
    "mixture.frames": f"1,{FRAMES}",
    "mixture.frames_weights": "1,3",
    "mixture.fps": str(FPS),
    "mixture.fps_weights": "1",
    "mixture.frames_per_step": str(8 * FRAMES),
    "mixture.max_clips_per_step": "8",
}
LEARNING = {
    "regimen.learning_rate": "8e-4",
    "regimen.spatial_rate": "0.2",
    "regimen.warmup_steps": "30",
    "regimen.ema_decay": "0.99",
    "regimen.offset_noise": "0",
    "regimen.drop_text": "0.1",
    "regimen.drop_image": "0.1",
    "regimen.drop_detail": "0.05",
    "regimen.drop_all": "0.05",
}
SHARED = {
    "regimen.spatial_rate": "1",
    "mixture.frames": str(FRAMES),
    "mixture.frames_weights": "1",
}
HALF_BATCH = {"mixture.frames_per_step": str(4 * FRAMES), "mixture.max_clips_per_step": "4"}
REFINE = {
    **MIXTURE,
    **HALF_BATCH,
    "regimen.learning_rate": "5e-4",
    "regimen.spatial_rate": "1",
    "regimen.noise_range": "250",
    "regimen.warmup_steps": "20",
    "regimen.ema_decay": "0.98",
    "regimen.offset_noise": "0",
    "premium_steps": "0",
}
