"""Fine-tuning on texts with calls (paper, section 2, last step).

    sources -> mixture -> examples -> packing -> input_pipeline -> train_step

`finetune` is the entry point, `trainer` sets a run up, and `train_loop` runs its steps.
"""
