"""AdaLoRA keeps the ranks that PEFT's allocator keeps, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from toolformer_jax.models.adapter_config import AdaLoraConfig
from toolformer_jax.training.adalora import allocate_ranks, budgets, orthogonality_penalty

LAYERS, MODULES, STEPS, RATE = 3, {'query': (5, 7), 'key': (5, 3)}, 24, 0.05
CONFIG = AdaLoraConfig(init_rank=6, target_rank=2, tinit=3, tfinal=5, delta_t=2, beta1=0.8,
                       beta2=0.7)


class Layers(torch.nn.Module):
  """The modules of all layers."""

  config = {'model_type': 'none'}

  def __init__(self):
    super().__init__()
    self.layers = torch.nn.ModuleList(
        torch.nn.ModuleDict({name: torch.nn.Linear(*sizes) for name, sizes in MODULES.items()})
        for _ in range(LAYERS))

  def forward(self, x):
    return sum(layer[name](x).sum() for layer in self.layers for name in MODULES)


def random_tree(rng, scale):
  rank = CONFIG.init_rank
  return {'blocks': {name: {
      'a': rng.normal(0, scale, (LAYERS, inputs, rank)).astype(np.float32),
      'e': rng.normal(0, scale, (LAYERS, rank)).astype(np.float32),
      'b': rng.normal(0, scale, (LAYERS, rank, outputs)).astype(np.float32),
  } for name, (inputs, outputs) in MODULES.items()}}


@pytest.fixture
def theirs():
  config = peft.AdaLoraConfig(
      init_r=CONFIG.init_rank, target_r=CONFIG.target_rank, tinit=CONFIG.tinit,
      tfinal=CONFIG.tfinal, deltaT=CONFIG.delta_t, beta1=CONFIG.beta1, beta2=CONFIG.beta2,
      orth_reg_weight=0.5, total_step=STEPS, target_modules=list(MODULES))
  return peft.get_peft_model(Layers(), config)


def put(model, tree, as_gradients=False):
  """Copies a tree to the weights, or the gradients, of PEFT's modules."""
  for i, layer in enumerate(model.base_model.model.layers):
    for name in MODULES:
      ours = tree['blocks'][name]
      for theirs, value in (('lora_A', ours['a'][i].T), ('lora_E', ours['e'][i][:, None]),
                            ('lora_B', ours['b'][i].T)):
        parameter = getattr(layer[name], theirs)['default']
        value = torch.tensor(np.ascontiguousarray(value))
        if as_gradients:
          parameter.grad = value
        else:
          parameter.data = value


def singular_values(model):
  return {name: np.stack([layer[name].lora_E['default'].detach().numpy()[:, 0]
                          for layer in model.base_model.model.layers]) for name in MODULES}


def test_ranks_and_budgets_are_those_of_the_allocator(theirs):
  rng = np.random.default_rng(0)
  params = random_tree(rng, 1.0)
  put(theirs, params)
  allocator = theirs.base_model.rankallocator
  ours = allocate_ranks(CONFIG, STEPS)
  state, update = ours.init(params), jax.jit(ours.update)
  table = budgets(CONFIG, STEPS, LAYERS * len(MODULES) * CONFIG.init_rank)
  removed = []
  for step in range(1, STEPS + 1):
    grads = random_tree(rng, 1.0)
    put(theirs, grads, as_gradients=True)
    with torch.no_grad():
      for parameter in theirs.parameters():
        if parameter.grad is not None:
          parameter -= RATE * parameter.grad
    theirs.base_model.update_and_allocate(step)
    updates, state = update(jax.tree.map(lambda g: -RATE * g, grads), state, params, grads=grads)
    params = jax.tree.map(jnp.add, params, updates)
    assert table[step] == allocator.budget_schedule(step)[0]
    for name, expected in singular_values(theirs).items():
      got = params['blocks'][name]['e']
      np.testing.assert_allclose(got, expected, atol=1e-5)
      np.testing.assert_array_equal(got == 0, expected == 0)
    removed.append(sum(int((params['blocks'][name]['e'] == 0).sum()) for name in MODULES))
  assert removed[:3] == [0] * 3 and removed[-1] == 24 and len({*removed}) > 5


def test_the_penalty_is_the_same(theirs):
  params = random_tree(np.random.default_rng(1), 0.3)
  put(theirs, params)
  class Loss:
    loss = torch.zeros(())
  theirs.base_model.model.forward = lambda x: Loss()
  expected = theirs.base_model.forward(torch.zeros(1, 5)).loss / 0.5
  assert float(orthogonality_penalty(params)) == pytest.approx(float(expected), rel=1e-5)
