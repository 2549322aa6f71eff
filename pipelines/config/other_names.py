"""Keys of the configuration by the names that they have in other programs."""

from __future__ import annotations

_SAME_KEY = {
    "model.name_or_path": "model_name_or_path model_name model_path model_id base_model pretrained pretrain",
    "model.revision": "model_revision",
    "model.dtype": "torch_dtype bf16 fp16 fp32 precision",
    "model.load_in_4bit": "quantization_bit quantization load_in_8bit",
    "model.use_peft": "finetuning_type use_lora peft lora",
    "model.lora_r": "lora_rank peft_lora_r",
    "model.lora_alpha": "peft_lora_alpha",
    "model.lora_target_modules": "lora_target target_modules",
    "model.attn_implementation": "flash_attn use_flash_attention_2",
    "model.chat_template": "template chat_template_path",
    "data.demonstrations data.comparisons data.prompts": "dataset datasets dataset_name dataset_path dataset_dir",
    "data.eval_fraction": "val_size test_size eval_dataset validation_split",
    "data.demonstrations.limit": "max_samples",
    "run.dir": "output_dir logging_dir run_dir save_path",
    "run.seed": "data_seed random_seed",
    "run.device": "use_cpu no_cuda cpu",
    "run.threads": "num_threads",
    "run.report_to": "log_with logger use_wandb use_tensorboard",
    "sft.train_on": "train_on_prompt mask_history assistant_only_loss completion_only_loss",
    "sft.packing": "pack_sequences",
    "sft.max_length reward.max_length": "cutoff_len max_seq_length max_seq_len model_max_length max_len",
    "sft.learning_rate reward.learning_rate ppo.learning_rate": "lr actor_learning_rate",
    "ppo.value_learning_rate": "critic_learning_rate",
    "sft.num_train_epochs reward.num_train_epochs": "epochs num_epochs max_epochs",
    "sft.per_device_train_batch_size reward.per_device_train_batch_size": "batch_size train_batch_size",
    "sft.warmup_ratio reward.warmup_ratio": "warmup_steps lr_warmup_steps",
    "ppo.num_ppo_epochs": "ppo_epochs",
    "ppo.num_mini_batches": "mini_batch_size",
    "ppo.rollout_batch_size": "ppo_buffer_size",
    "ppo.rollout_forward_batch_size": "local_rollout_forward_batch_size micro_rollout_batch_size",
    "ppo.response_length": "generate_max_len max_completion_length max_response_length",
    "ppo.max_prompt_length": "prompt_max_len",
    "ppo.num_generations": "num_return_sequences n_samples_per_prompt rloo_k completions_per_prompt",
    "ppo.advantage_estimator": "adv_estimator advantage_type",
    "ppo.kl_coef": "beta init_kl_coef init_kl_coeff kl_coeff kl_penalty",
    "ppo.kl_target": "ppo_target target_kl kl_target_value",
    "ppo.cliprange": "clip_range eps_clip clip_ratio",
    "ppo.cliprange_high": "epsilon_high clip_ratio_high eps_clip_high",
    "ppo.cliprange_value": "value_clip cliprange_vf",
    "ppo.lam": "lambda lambd gae_lambda",
    "ppo.reward_normalization": "ppo_score_norm use_score_scaling normalize_reward",
    "ppo.reward.path": "reward_model reward_model_path reward_model_name_or_path reward_pretrain",
    "ppo.whiten_advantages": "ppo_whiten_rewards whiten_rewards",
    "ppo.stop_tokens": "stop_token stop_token_id",
}
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    name: tuple(keys.split()) for keys, names in _SAME_KEY.items() for name in names.split()
}
"""A name in TRL, LLaMA-Factory, OpenRLHF or transformers: the dotted keys that mean the same here, or nearly so."""
