# from the FLUX guide: 16 GB
accelerate launch --mixed_precision bf16 --num_cpu_threads_per_process 1 sd-scripts/flux_train_network.py \
  --pretrained_model_name_or_path /models/flux1-dev.safetensors \
  --clip_l /models/clip_l.safetensors --t5xxl /models/t5xxl_fp16.safetensors --ae /models/ae.safetensors \
  --cache_latents_to_disk --save_model_as safetensors --sdpa --persistent_data_loader_workers \
  --max_data_loader_n_workers 2 --seed 42 --gradient_checkpointing --mixed_precision bf16 --save_precision bf16 \
  --network_module networks.lora_flux --network_dim 4 --network_alpha 4 --network_train_unet_only \
  --network_args "train_double_block_indices=all" "img_mod_dim=0" \
  --optimizer_type adamw8bit --learning_rate 1e-4 --lr_scheduler constant_with_warmup --lr_warmup_steps 100 \
  --cache_text_encoder_outputs --cache_text_encoder_outputs_to_disk --fp8_base --highvram \
  --max_train_epochs 4 --save_every_n_epochs 1 --train_data_dir /data/face/img --resolution 1024,1024 \
  --enable_bucket --caption_extension .txt \
  --output_dir /out --output_name flux-lora --timestep_sampling shift --discrete_flow_shift 3.1582 \
  --model_prediction_type raw --guidance_scale 1.0 --loss_type l2
