"""The entropies and the loss inside a plain PyTorch loop, on a tiny random model. Runs offline in seconds."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from isentropic import DebiasingLoss, EntropyScorer

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.5,
    )
)
scorer, loss_fn = EntropyScorer(), DebiasingLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

# Two prompts of three tokens that differ in one, and the same response of four tokens after both.
response = [11, 12, 13, 14]
input_ids = torch.tensor([[5, 6, 7, *response], [5, 8, 7, *response]])
attention_mask = torch.ones_like(input_ids)
predicts = torch.zeros_like(input_ids, dtype=torch.bool)
predicts[:, 2:6] = True  # position t predicts token t + 1

for step in range(5):
    entropies = scorer.score(model, input_ids, attention_mask, predicts).means()
    loss, metrics = loss_fn(entropies, ["male", "female"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step + 1}: loss {metrics['loss']:.6f}, gap {metrics['entropy_gap']:.4f} nats")
