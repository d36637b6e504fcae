"""For every setting: a changed value, what it alters, and the settings that have to be on for that.

Read by test_every_setting.py, which fails for a setting that is not here. `alters` names a side of `variants.Variant`:
plan.KEY, table, batch.FIELD and inputs.FIELD (before and after encoding), loss, gradient, weights (after three
updates), file.tensors, metadata.KEY, pictures, state (of torch), refused, or run.WHAT (of a whole short run).
"{other_base}" and the like in a value stand for a file or name that the test puts in.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """to: the changed value, as --set takes it; along: settings of both sides; data: datasets of both sides.

    by_family: where the value is another one there. number: of the dataset, where not all are meant.
    """

    to: str
    alters: str
    along: tuple[str, ...] = ()
    data: tuple[str, ...] = ("2_zorp",)
    by_family: tuple[tuple[str, str], ...] = ()
    number: int | None = None


_TAGS = ("datasets.captions.shuffle=true",)
_TEXT = ("text_encoder.train=true",)
_SAMPLED = ("sampling.every_steps=3", "sampling.prompts=['a zorp, red', 'a zorp, blue']")
_PRIOR = ("training.gradient_accumulation=8", "loss.prior_weight=0.5")
_LITTLE_NOISE = ("noise.max_timestep=300",)  # where the SNR is high, so that weights by it bite
_BOTH = ("2_zorp", "1_class")

EFFECTS: dict[str, Effect] = {
    "profile": Effect("quick_test", "plan.steps"),
    # --- run
    "run.name": Effect("another", "metadata.ss_output_name"),
    "run.seed": Effect("8", "batch.noise_seeds"),
    "run.deterministic": Effect("true", "state"),
    "run.comment": Effect("for my aunt", "metadata.ss_training_comment"),
    # --- model
    "model.base": Effect("{other_base}", "loss"),
    "model.family": Effect("{another_family}", "refused"),
    "model.vae": Effect("{other_base}/vae", "inputs.moments"),
    "model.prediction": Effect("v_prediction", "loss"),
    # --- datasets
    "datasets.path": Effect("1_class", "batch.pixels"),
    "datasets.repeats": Effect("3", "plan.pictures_per_epoch"),
    "datasets.resolution": Effect("40", "plan.bucket_counts"),
    "datasets.regularization": Effect("true", "batch.weights", _PRIOR, _BOTH, number=1),
    "datasets.caption_extension": Effect(".caption", "batch.captions"),
    "datasets.caption_column": Effect("other", "batch.captions", data=("2_fields",)),
    "datasets.default_caption": Effect("a picture of zorp", "batch.captions", data=("2_silent",)),
    "datasets.flip": Effect("true", "inputs.moments"),
    "datasets.random_crop": Effect("true", "batch.pixels", ("buckets.enabled=false",)),
    "datasets.masks": Effect("{masks}", "loss"),
    "datasets.strict": Effect("true", "refused", data=("2_broken",)),
    "datasets.captions.prefix": Effect("a photo of", "batch.captions"),
    "datasets.captions.suffix": Effect("in watercolour", "batch.captions"),
    "datasets.captions.trigger": Effect("ohwx", "batch.captions"),
    "datasets.captions.dropout_rate": Effect("0.5", "batch.captions"),
    "datasets.captions.dropout_every_n_epochs": Effect("2", "batch.captions"),
    "datasets.captions.wildcards": Effect("true", "batch.captions"),
    "datasets.captions.keep_tokens": Effect("2", "batch.captions", _TAGS),
    "datasets.captions.keep_tokens_separator": Effect("|||", "batch.captions", _TAGS),
    "datasets.captions.token_warmup_min": Effect("3", "batch.captions", ("datasets.captions.token_warmup_step=5",)),
    "datasets.captions.token_warmup_step": Effect("0.9", "batch.captions"),
    "datasets.captions.shuffle": Effect("true", "batch.captions"),
    "datasets.captions.tag_dropout_rate": Effect("0.5", "batch.captions"),
    "datasets.captions.separator": Effect("o", "batch.captions", _TAGS),
    "datasets.captions.secondary_separator": Effect(";", "batch.captions"),
    # --- buckets
    "buckets.resolution": Effect("40", "plan.bucket_counts"),
    "buckets.enabled": Effect("false", "plan.bucket_counts"),
    "buckets.algorithm": Effect("kohya", "table"),
    "buckets.no_upscale": Effect("true", "plan.bucket_counts"),
    "buckets.min_side": Effect("24", "plan.bucket_counts"),
    "buckets.max_side": Effect("32", "plan.bucket_counts"),
    "buckets.step": Effect("16", "plan.bucket_counts"),
    # --- text encoders
    "text_encoder.train": Effect("true", "gradient"),
    "text_encoder.learning_rate": Effect("1e-2", "weights", _TEXT),
    "text_encoder.learning_rate_2": Effect("1e-2", "weights", _TEXT),
    "text_encoder.stop_step": Effect("1", "weights", _TEXT),
    "text_encoder.clip_skip": Effect("2", "loss"),
    "text_encoder.clip_tokens": Effect("150", "loss"),
    "text_encoder.t5_tokens": Effect("16", "loss"),
    # --- network
    # all_linear: dora has to cover the whole of a matrix that the original FLUX has in one piece
    "network.type": Effect("dora", "plan.parameters", ("network.targets=all_linear",)),
    "network.rank": Effect("8", "plan.parameters"),
    "network.alpha": Effect("4", "gradient"),
    "network.conv_rank": Effect("2", "plan.modules"),
    "network.conv_alpha": Effect("1", "gradient", ("network.conv_rank=4",)),
    "network.dropout": Effect("0.5", "gradient"),
    "network.rslora": Effect("true", "gradient"),
    "network.targets": Effect("attention_mlp", "plan.modules"),
    "network.block_ranks": Effect('{ "to_q" = 2 }', "plan.parameters"),
    "network.init_from": Effect("{lora_file}", "loss"),
    "network.max_norm": Effect("1e-3", "weights"),
    # --- optimizer
    "optimizer.name": Effect("lion", "weights"),
    "optimizer.learning_rate": Effect("1e-2", "weights"),
    "optimizer.weight_decay": Effect("0.5", "weights"),
    "optimizer.beta1": Effect("0.5", "weights"),
    "optimizer.beta2": Effect("0.5", "weights"),
    "optimizer.eps": Effect("1e-2", "weights"),
    "optimizer.args": Effect("{ maximize = true }", "weights"),
    "optimizer.max_grad_norm": Effect("1e-3", "weights"),
    "optimizer.lora_plus_ratio": Effect("16", "weights"),
    # --- schedule
    "schedule.name": Effect("linear", "weights"),
    "schedule.warmup_steps": Effect("2", "weights"),
    "schedule.cycles": Effect("3", "weights", ("schedule.name=cosine_with_restarts",)),
    "schedule.power": Effect("3", "weights", ("schedule.name=polynomial",)),
    # --- training
    "training.steps": Effect("8", "plan.steps"),
    "training.epochs": Effect("3", "plan.steps"),
    "training.batch_size": Effect("1", "plan.batches_per_epoch"),
    "training.gradient_accumulation": Effect("2", "weights"),
    "training.ema_decay": Effect("0.9", "file.tensors"),
    # --- noise
    "noise.timesteps": Effect("logit_normal", "loss", by_family=(("flux", "uniform"),)),
    "noise.sigmoid_scale": Effect("2", "loss", ("noise.timesteps=sigmoid",)),
    "noise.shift": Effect("5", "loss", ("noise.timesteps=shift",)),
    "noise.logit_mean": Effect("1", "loss", ("noise.timesteps=logit_normal",)),
    "noise.logit_std": Effect("0.5", "loss", ("noise.timesteps=logit_normal",)),
    "noise.min_timestep": Effect("500", "loss"),
    "noise.max_timestep": Effect("500", "loss"),
    "noise.offset": Effect("0.1", "loss"),
    "noise.offset_adaptive": Effect("0.5", "loss"),
    "noise.multires_iterations": Effect("3", "loss"),
    "noise.multires_discount": Effect("0.8", "loss", ("noise.multires_iterations=3",)),
    "noise.ip_gamma": Effect("0.1", "loss"),
    "noise.zero_terminal_snr": Effect("true", "loss"),
    "noise.guidance": Effect("3.5", "loss"),
    # --- loss
    "loss.type": Effect("huber", "loss"),
    "loss.huber_c": Effect("0.3", "loss", ("loss.type=huber",)),
    "loss.huber_schedule": Effect("exponential", "loss", ("loss.type=huber",)),
    "loss.min_snr_gamma": Effect("1", "loss", _LITTLE_NOISE),
    "loss.debiased": Effect("true", "loss", _LITTLE_NOISE),
    "loss.scale_v_like_noise": Effect("true", "loss", ("model.prediction=v_prediction",)),
    "loss.v_like_weight": Effect("1", "loss"),
    "loss.prior_weight": Effect(
        "0.25", "loss", ("training.gradient_accumulation=8", "datasets.1.regularization=true"), _BOTH
    ),
    # --- precision, memory, cache
    "precision.mixed": Effect("bf16", "loss"),
    "precision.base": Effect("int8", "loss"),
    "precision.save": Effect("fp32", "file.tensors"),
    "memory.gradient_checkpointing": Effect("false", "plan.vram"),
    "memory.attention": Effect("native", "weights"),
    "memory.compile": Effect("true", "run.notices"),
    "cache.latents": Effect("false", "inputs.moments"),
    "cache.text": Effect("false", "inputs.conditioning"),
    "cache.max_gb": Effect("1e-6", "plan.warnings"),
    # --- sampling
    "sampling.every_steps": Effect("3", "run.samples"),
    "sampling.at_start": Effect("false", "run.samples", _SAMPLED),
    "sampling.prompts": Effect("['a small zorp']", "pictures", _SAMPLED[:1]),
    "sampling.prompts_file": Effect("{prompts_file}", "pictures", _SAMPLED[:1]),
    "sampling.sampler": Effect("ddim", "pictures", _SAMPLED, by_family=(("flux", "flow_dpmpp_2m"),)),
    "sampling.steps": Effect("3", "pictures", _SAMPLED),
    "sampling.guidance": Effect("3", "pictures", _SAMPLED),
    "sampling.negative": Effect("blurry", "pictures", (*_SAMPLED, "sampling.guidance=3")),
    "sampling.size": Effect("40", "pictures", _SAMPLED),
    "sampling.seed": Effect("1", "pictures", _SAMPLED),
    "sampling.evaluate_at_end": Effect("true", "run.report"),
    # --- saving, logging, notifications
    "saving.every_steps": Effect("2", "run.checkpoints"),
    "saving.every_epochs": Effect("1", "run.checkpoints", ("training.gradient_accumulation=8", "training.steps=2")),
    "saving.keep": Effect("1", "run.checkpoints", ("saving.every_steps=1",)),
    "saving.diffusers": Effect("true", "run.files"),
    "saving.links": Effect("shown", "run.links"),
    "saving.hub_model_id": Effect("me/zorp", "run.jobs"),
    "saving.title": Effect("Zorp", "metadata.modelspec.title"),
    "saving.author": Effect("me", "metadata.modelspec.author"),
    "saving.license": Effect("CC0-1.0", "metadata.modelspec.license"),
    "saving.description": Effect("A zorp.", "metadata.modelspec.description"),
    "logging.every_steps": Effect("2", "run.steps"),
    "logging.tensorboard": Effect("true", "run.logs"),
    "logging.wandb_project": Effect("zorps", "run.wandb"),
    "notifications.webhook_env": Effect("ZORP_HOOK", "run.told"),
}
