"""Fine-tune a causal model on chats with canaries, and watch what it memorizes.

First write the data with canaries in the assistant's messages, which this script reads:

    canaryaudit insert chats.jsonl --column messages[].content --role assistant -t "your code is {digits:6}." \
        -n 4 -r 2,24 -o runs/chats --export chats-audited.jsonl

Then: python audit_a_fine_tuning.py chats-audited.jsonl runs/chats out, and
canaryaudit measure runs/chats --model 'hf:out/checkpoint-*'; canaryaudit report runs/chats
"""

import sys

import datasets
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer, TrainingArguments

from canaryaudit import ExposureCallback

if len(sys.argv) != 4:
    sys.exit(__doc__)
data, run, out = sys.argv[1:]
torch.manual_seed(0)
chats = datasets.Dataset.from_json(data)
texts = ["\n".join(f"{own['role']}: {own['content']}" for own in chat) for chat in chats["messages"]]

# In your own script these are AutoTokenizer.from_pretrained(...) and AutoModelForCausalLM.from_pretrained(...); here a
# small tokenizer and model are made on the spot, so that the example needs no network.
backend = Tokenizer(models.BPE())
# Digits stay single: a tokenizer trained on the secrets themselves would hold them in fewer tokens than other numbers.
digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
backend.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
backend.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
backend.train_from_iterator(
    texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")
model = GPT2LMHeadModel(
    GPT2Config(
        vocab_size=len(tokenizer), n_embd=96, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0
    )
)


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    ids = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]
    labels = [row["input_ids"] + [-100] * (longest - len(row["input_ids"])) for row in rows]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=out,
        max_steps=400,
        per_device_train_batch_size=16,
        learning_rate=4e-3,
        save_steps=200,
        logging_steps=100,
        report_to=[],
        disable_tqdm=True,
        seed=0,
        use_cpu=True,
        remove_unused_columns=False,
    ),
    train_dataset=datasets.Dataset.from_dict({"input_ids": [tokenizer(text)["input_ids"][:128] for text in texts]}),
    data_collator=collate,
    processing_class=tokenizer,
)
ExposureCallback(run, every=80).attach(trainer)
trainer.train()
for line in trainer.state.log_history:
    if "exposure/max" in line:
        print({name: round(value, 2) for name, value in line.items()})
