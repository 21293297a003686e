"""Train from Python, in the shape of transformers' Trainer. Run: python examples/train_in_python.py"""

from isentropic import DebiasingConfig, DebiasingTrainer, load_prompts

trainer = DebiasingTrainer(
    model="smollm2-135m",
    args=DebiasingConfig(
        output_dir="runs/python/checkpoints", max_steps=4, micro_batch_size=16, effective_batch=32
    ),
    train_dataset=load_prompts(),
)
print(trainer.evaluate()["eval_gap"])
trainer.train()
print(trainer.evaluate()["eval_gap"])
trainer.save_model("runs/python/final")
