"""`RunConfig`: everything a run depends on, section by section. Used by every room; declared nowhere else.

Conventions: a rate is a fraction of one, a size is in pixels (width, height), a step is an optimizer update.
`None` means "decided from the model family or the data", and the decision is printed with its reason.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainpilot.config.fields import Section, setting

SCHEMA_VERSION = 1
MAX_SEED = 2**63 - 1
Side = Annotated[int, Field(ge=16, le=16384)]
Size = tuple[Side, Side]


class Run(Section):
    """Name, place and seed of a run."""

    name: str | None = setting(
        None, "Name of the run and of its file; made from dataset and time when empty", pattern=r"^[\w][\w.\- ]{0,99}$"
    )
    seed: int = setting(42, "Seed of every random draw", ge=0, le=MAX_SEED)
    deterministic: bool = setting(False, "Ask torch for deterministic kernels (slower on a GPU)")
    comment: str = setting("", "Free text, stored in the result's metadata", max_length=2000)


class Model(Section):
    """The base model."""

    base: str = setting("", "Base model: a diffusers folder or a .safetensors file, absolute or in models/")
    family: str = setting("auto", "Model family; auto detects it from the files")
    vae: str | None = setting(None, "Replacement VAE: a diffusers folder or a .safetensors file")
    prediction: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", "What a Stable Diffusion base predicts; auto reads its scheduler configuration"
    )


class Captions(Section):
    """What is done to a caption before it is encoded, in this order."""

    prefix: str = setting("", "Put before every caption")
    suffix: str = setting("", "Put after every caption")
    trigger: str = setting("", "Trigger word(s): put first where a caption does not start with them")
    dropout_rate: float = setting(0.0, "Share of captions replaced by the empty caption", ge=0, le=1)
    dropout_every_n_epochs: int = setting(0, "Empty captions in every n-th epoch; 0 never", unit="epochs", ge=0)
    wildcards: bool = setting(False, "Choose one of {red|green} at every draw, and one line of several")
    keep_tokens: int = setting(0, "Leading tags that are neither shuffled nor dropped", unit="tags", ge=0)
    keep_tokens_separator: str = setting("", "Separates fixed from flexible tags; wins over keep_tokens")
    token_warmup_min: int = setting(1, "Tags used at the first step of the tag warm-up", unit="tags", ge=1)
    token_warmup_step: float = setting(
        0, "Step at which all tags are used; below 1 a share of the run; 0 off", unit="steps", ge=0
    )
    shuffle: bool = setting(False, "Shuffle the tags at every draw")
    tag_dropout_rate: float = setting(0.0, "Share of tags left out at every draw", ge=0, le=1)
    separator: str = setting(",", "Separates tags", min_length=1)
    secondary_separator: str = setting("", "Binds tags that move together; becomes the separator at the end")


class Dataset(Section):
    """One folder of pictures, in any of the layouts."""

    path: str = setting("", "Folder of the pictures, absolute or in datasets/")
    repeats: int | None = setting(None, "Times each image is seen an epoch; none takes it from N_name", ge=1, le=10000)
    resolution: Side | Size | None = setting(
        None, "Training size of this dataset; none takes buckets.resolution", unit="px"
    )
    regularization: bool = setting(False, "Pictures of the class, which hold the base model in place")
    caption_extension: str = setting(".txt", "Ending of caption files", pattern=r"^\.[\w.]+$")
    caption_column: str = setting("text", "Caption's field in metadata.jsonl")
    default_caption: str | None = setting(None, "Caption of images that have none; none takes the folder's class")
    captions: Captions = setting(Captions, "What is done to captions")
    flip: bool = setting(False, "Mirror half of the draws left to right")
    random_crop: bool = setting(False, "Crop at a random place instead of the centre")
    masks: str | None = setting(None, "Folder of masks with the images' names; white is trained")
    strict: bool = setting(False, "Refuse the whole dataset over one broken image or badly encoded caption")


class Buckets(Section):
    """Training size and aspect-ratio buckets."""

    resolution: Side | Size | None = setting(None, "Training size; none takes the family's", unit="px")
    enabled: bool = setting(True, "Sort images by aspect ratio instead of cropping all to one size")
    algorithm: Literal["kohya", "native"] = setting(
        "native", "kohya is exact to sd-scripts; native crops the least area"
    )
    no_upscale: bool = setting(False, "Never enlarge an image: its bucket follows its own size")
    min_side: int = setting(256, "Shortest bucket side (kohya: upscale mode only)", unit="px", ge=16)
    max_side: int = setting(2048, "Longest bucket side (kohya: upscale mode only)", unit="px", ge=16)
    step: int | None = setting(None, "Bucket sides are multiples of this; none takes the family's", unit="px", ge=8)


class TextEncoder(Section):
    """Reading the captions, and training what reads them."""

    train: bool = setting(False, "Train LoRA layers in the CLIP text encoders too")
    learning_rate: float | None = setting(None, "Rate of the first text encoder; none takes optimizer's", ge=0, le=10)
    learning_rate_2: float | None = setting(
        None, "Rate of the second text encoder; none takes the first's", ge=0, le=10
    )
    stop_step: int | None = setting(None, "Freeze the text encoders from this step on", unit="steps", ge=0)
    clip_skip: int = setting(1, "Use the CLIP layer that many from the end (1 = last)", ge=1, le=12)
    clip_tokens: Literal[75, 150, 225] = setting(75, "Caption tokens that CLIP reads, in chunks of 75", unit="tokens")
    t5_tokens: int = setting(512, "Caption tokens that T5 reads", unit="tokens", ge=16, le=512)


class Network(Section):
    """The adapter that is trained."""

    type: Literal["lora", "dora", "loha", "lokr"] = setting("lora", "Kind of adapter")
    rank: int = setting(32, "Rank of linear layers", ge=1, le=1024)
    alpha: float = setting(32.0, "Scale is alpha / rank", gt=0, le=4096)
    conv_rank: int = setting(0, "Rank of convolutions; 0 leaves them alone", ge=0, le=1024)
    conv_alpha: float | None = setting(
        None, "Alpha of convolutions; none keeps alpha / rank of the linear layers", gt=0, le=4096
    )
    dropout: float = setting(0.0, "Dropout on the adapter's input", ge=0, lt=1)
    rslora: bool = setting(False, "Scale by alpha / sqrt(rank) instead of alpha / rank")
    targets: str | list[str] = setting("default", "A preset of the family's card, or module name endings")
    block_ranks: dict[str, Annotated[int, Field(ge=0, le=1024)]] = setting(
        {}, "Rank by pattern of the module name; 0 leaves the module out"
    )
    init_from: str | None = setting(None, "Warm start: a LoRA file whose weights training begins with")
    max_norm: float | None = setting(None, "Scale down modules whose weight norm exceeds this", gt=0)


class Optimizer(Section):
    """The optimizer and its rate."""

    name: Literal["adamw", "adamw8bit", "lion", "lion8bit", "adafactor", "prodigy", "adamw_schedulefree"] = setting(
        "adamw", "Optimizer"
    )
    learning_rate: float = setting(1e-4, "Learning rate of the denoiser's adapter (Prodigy: 1)", ge=0, le=10)
    weight_decay: float = setting(0.01, "Weight decay", ge=0, le=10)
    beta1: float = setting(0.9, "First momentum", ge=0, lt=1)
    beta2: float = setting(0.999, "Second momentum", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to the denominator", ge=0, lt=1)
    args: dict[str, float | int | bool | str] = setting({}, "Further arguments of the optimizer's own")
    max_grad_norm: float = setting(1.0, "Clip the gradient to this norm; 0 off", ge=0)
    lora_plus_ratio: float = setting(1.0, "LoRA+: rate of the up weights over that of the down weights", gt=0, le=1024)


class Schedule(Section):
    """The course of the learning rate."""

    name: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"] = (
        setting("cosine", "Course of the learning rate")
    )
    warmup_steps: float = setting(0, "Steps of warm-up; below 1 a share of the run", unit="steps", ge=0)
    cycles: int = setting(1, "Restarts of cosine_with_restarts", ge=1, le=1000)
    power: float = setting(1.0, "Power of polynomial", gt=0, le=10)


class Training(Section):
    """How long and in what batches. Steps or epochs, never both."""

    steps: int | None = setting(None, "Optimizer updates", unit="steps", ge=1, le=10_000_000)
    epochs: int | None = setting(None, "Passes over the data", unit="epochs", ge=1, le=1_000_000)
    batch_size: int = setting(1, "Images a device sees at once", unit="images", ge=1, le=1024)
    gradient_accumulation: int = setting(1, "Batches summed into one update", unit="batches", ge=1, le=1024)
    ema_decay: float = setting(0.0, "Keep an exponential average of the adapter; 0 off", ge=0, lt=1)


class Noise(Section):
    """The noise that is added and where on the path it is added."""

    timesteps: Literal["auto", "uniform", "sigmoid", "shift", "flux_shift", "logit_normal"] = setting(
        "auto", "Distribution of the noise level; auto takes the family's"
    )
    sigmoid_scale: float = setting(1.0, "Width of the sigmoid and shift distributions", gt=0, le=100)
    shift: float = setting(3.0, "Shift of the shift distribution", gt=0, le=100)
    logit_mean: float = setting(0.0, "Mean of the logit-normal distribution", ge=-10, le=10)
    logit_std: float = setting(1.0, "Deviation of the logit-normal distribution", gt=0, le=10)
    min_timestep: int = setting(0, "Least noise, of 1000", ge=0, le=999)
    max_timestep: int = setting(1000, "Most noise, of 1000", ge=1, le=1000)
    offset: float = setting(0.0, "Noise offset: strength of noise that is constant over a channel", ge=0, le=1)
    offset_adaptive: float = setting(0.0, "Added to the offset per unit of the latents' mean", ge=-1, le=1)
    multires_iterations: int = setting(0, "Levels of multi-resolution noise; 0 off", ge=0, le=64)
    multires_discount: float = setting(0.3, "Strength of each level over the one before", ge=0, le=1)
    ip_gamma: float = setting(0.0, "Input perturbation: extra noise on the input alone", ge=0, le=1)
    zero_terminal_snr: bool = setting(False, "Rescale the betas so that the last step is pure noise")
    guidance: float = setting(1.0, "Embedded guidance while training (FLUX.1-dev)", ge=0, le=100)


class Loss(Section):
    """How the prediction is compared with its target."""

    type: Literal["l2", "huber", "smooth_l1"] = setting("l2", "Distance")
    huber_c: float = setting(0.1, "Where huber turns from square to linear", gt=0, le=10)
    huber_schedule: Literal["constant", "exponential", "snr"] = setting("snr", "How huber_c follows the noise level")
    min_snr_gamma: float = setting(0.0, "Min-SNR weighting; 0 off", ge=0, le=1000)
    debiased: bool = setting(False, "Debiased estimation weighting")
    scale_v_like_noise: bool = setting(False, "v-prediction: weight as if noise were predicted")
    v_like_weight: float = setting(0.0, "Adds this share of a v-prediction weighting to noise prediction", ge=0, le=100)
    prior_weight: float = setting(1.0, "Weight of regularisation images", ge=0, le=100)


class Precision(Section):
    """Number formats."""

    mixed: Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto", "Arithmetic; auto takes bf16 where the device has it"
    )
    base: Literal["full", "int8", "nf4", "fp8"] = setting("full", "Storage of the frozen denoiser")
    save: Literal["fp16", "bf16", "fp32"] = setting("fp16", "Format of the saved LoRA")


class Memory(Section):
    """What trades time for memory."""

    gradient_checkpointing: bool = setting(True, "Recompute activations in the backward pass")
    attention: Literal["auto", "native", "sdpa", "flash", "xformers"] = setting(
        "auto", "Attention kernel; probed before use"
    )
    compile: bool = setting(False, "Compile the repeated blocks")


class Cache(Section):
    """What is computed once and kept on disk, keyed by content."""

    latents: bool = setting(True, "Keep the VAE's output")
    text: bool = setting(True, "Keep the text encoders' output")
    max_gb: float = setting(50.0, "Least recently used entries go beyond this", unit="GB", gt=0)


class Sampling(Section):
    """Pictures made while training."""

    every_steps: int = setting(0, "Sample every so many steps; 0 never", unit="steps", ge=0)
    at_start: bool = setting(True, "Sample before the first step, when sampling at all")
    prompts: list[str] = setting([], "Prompts, with --n --w --h --d --s --l --g --ss options; none takes captions")
    prompts_file: str | None = setting(None, "File of prompts: one a line (.txt), or .toml, or .json")
    sampler: str = setting("auto", "Sampler; auto takes the family's")
    steps: int = setting(20, "Sampler steps", unit="steps", ge=1, le=1000)
    guidance: float | None = setting(None, "Guidance scale; none takes the family's", ge=0, le=100)
    negative: str = setting("", "Negative prompt")
    size: Side | Size | None = setting(None, "Size of samples; none takes the training size", unit="px")
    seed: int = setting(42, "Seed of the first prompt; the next ones count up", ge=0, le=MAX_SEED)
    evaluate_at_end: bool = setting(True, "Make the strength comparison when training ends")


class Saving(Section):
    """Checkpoints and the result."""

    every_steps: int = setting(0, "Checkpoint every so many steps; 0 only at the end", unit="steps", ge=0)
    every_epochs: int = setting(0, "Checkpoint every so many epochs; 0 off", unit="epochs", ge=0)
    keep: int = setting(3, "Checkpoints kept; 0 keeps all", unit="checkpoints", ge=0)
    diffusers: bool = setting(False, "Also write the result with diffusers' names")
    links: str | None = setting(
        None, "Folder for links to samples, newest checkpoint and result; none takes lora_training/output, if there"
    )
    hub_model_id: str = setting(
        "",
        "Repository of the Hugging Face Hub, owner/name, that gets the finished LoRA, private; the token is HF_TOKEN",
        pattern=r"^([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})?$",
    )
    title: str = setting("", "Title in the result's metadata; none takes the run's name", max_length=200)
    author: str = setting("", "Author in the result's metadata", max_length=200)
    license: str = setting("", "Licence in the result's metadata", max_length=200)
    description: str = setting("", "Description in the result's metadata", max_length=4000)


class Logging(Section):
    """What is written about the run besides its events."""

    every_steps: int = setting(1, "A step event every so many steps", unit="steps", ge=1, le=1000)
    tensorboard: bool = setting(True, "Write TensorBoard scalars and images")
    wandb_project: str = setting("", "Weights & Biases project; empty is off. The key is WANDB_API_KEY")


class Notifications(Section):
    """Who is told when a run ends."""

    webhook_env: str = setting(
        "", "Environment variable that holds the URL to tell; never the URL itself", pattern=r"^[A-Z0-9_]*$"
    )


class RunConfig(Section):
    """The whole configuration of one run."""

    schema_version: int = Field(
        SCHEMA_VERSION, alias="schema", description="Version of this schema", ge=1, le=SCHEMA_VERSION
    )
    profile: str = setting("custom", "The profile it came from")
    run: Run = setting(Run, "Name, place and seed")
    model: Model = setting(Model, "The base model")
    datasets: list[Dataset] = setting([], "The pictures")
    buckets: Buckets = setting(Buckets, "Training size and buckets")
    text_encoder: TextEncoder = setting(TextEncoder, "Reading the captions")
    network: Network = setting(Network, "The adapter")
    optimizer: Optimizer = setting(Optimizer, "The optimizer")
    schedule: Schedule = setting(Schedule, "The course of the learning rate")
    training: Training = setting(Training, "How long and in what batches")
    noise: Noise = setting(Noise, "Noise and noise levels")
    loss: Loss = setting(Loss, "The loss")
    precision: Precision = setting(Precision, "Number formats")
    memory: Memory = setting(Memory, "Time against memory")
    cache: Cache = setting(Cache, "What is kept on disk")
    sampling: Sampling = setting(Sampling, "Pictures made while training")
    saving: Saving = setting(Saving, "Checkpoints and the result")
    logging: Logging = setting(Logging, "Records")
    notifications: Notifications = setting(Notifications, "Who is told")
