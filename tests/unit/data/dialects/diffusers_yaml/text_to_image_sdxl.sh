accelerate launch --mixed_precision fp16 examples/text_to_image/train_text_to_image_lora_sdxl.py \
  --pretrained_model_name_or_path stabilityai/stable-diffusion-xl-base-1.0 \
  --pretrained_vae_model_name_or_path madebyollin/sdxl-vae-fp16-fix \
  --train_data_dir /data/naruto --caption_column text \
  --resolution 1024 --random_flip --center_crop \
  --train_batch_size 1 --num_train_epochs 2 --checkpointing_steps 500 --checkpoints_total_limit 3 \
  --learning_rate 1e-04 --lr_scheduler cosine --lr_warmup_steps 100 --snr_gamma 5.0 --use_8bit_adam \
  --gradient_checkpointing --enable_xformers_memory_efficient_attention \
  --seed 42 --rank 8 --output_dir sd-naruto-model-lora-sdxl --validation_prompt "cute dragon creature" --noise_ofset 0.1
